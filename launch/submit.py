"""Run all stages (preprocess, train, evaluate, page) on this machine, or as Slurm jobs if there is Slurm.

python launch/submit.py --nodes 2
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("submit")

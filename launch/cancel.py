"""Stop a run's Slurm jobs cleanly: the training saves a checkpoint first.

python launch/cancel.py RUN
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("cancel")

"""Measure checkpoints of a run, on its own held-out songs or on others, or audio files of any program.

python launch/evaluate.py RUN
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("evaluate")

"""Show the state of one run or of all: stages, progress, GPU-hours used and predicted.

python launch/status.py RUN
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("status")

"""Generate a new stem for songs with a trained model: drums for a song without drums.

python launch/generate.py SONG
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("generate")

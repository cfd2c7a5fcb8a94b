"""Compose songs from a seed and render them with FluidSynth: stems with exact beats and drum strokes, to train with.

python launch/compose.py DIR --songs 60 --seed 1
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("compose")

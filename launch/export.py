"""Write a trained generator into a folder that anybody can use and publish: weights, settings, model card.

python launch/export.py RUN --out DIR
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("export")

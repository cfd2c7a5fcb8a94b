"""Preprocess songs to shards without a run: what the first stage of launch/submit.py does.

python launch/preprocess.py --data DIR --out DIR --task drums,bass
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("preprocess")

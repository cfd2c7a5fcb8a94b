"""Check this machine or a cluster before it is trusted with a long training.

python launch/check.py preflight    one short job: is all there that a training needs?
python launch/check.py scaling      how speed grows with nodes
python launch/check.py drill        does a training that is stopped in every way come back exactly?
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("check")

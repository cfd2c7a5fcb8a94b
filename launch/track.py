"""Send the metrics of a run to MLflow, Weights & Biases or Trackio.

python launch/track.py RUN --to mlflow
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out under PYTHONSAFEPATH
from start import command

if __name__ == "__main__":
    command("track")

"""Send the metrics of a run to MLflow, Weights & Biases or Trackio.

python launch/track.py RUN --to mlflow
"""

from start import command

if __name__ == "__main__":
    command("track")

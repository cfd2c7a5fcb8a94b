"""Measure checkpoints of a run, on its own held-out songs or on others, or audio files of any program.

python launch/evaluate.py RUN
"""

from start import command

if __name__ == "__main__":
    command("evaluate")

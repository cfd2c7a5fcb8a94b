"""Stop a run's Slurm jobs cleanly: the training saves a checkpoint first.

python launch/cancel.py RUN
"""

from start import command

if __name__ == "__main__":
    command("cancel")

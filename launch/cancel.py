"""Stop a run's Slurm jobs in order; what was saved is good.

python launch/cancel.py RUN
"""

from start import command

if __name__ == "__main__":
    command("cancel")

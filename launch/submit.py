"""Run all stages (preprocess, train, evaluate, page) on this machine, or as Slurm jobs if there is Slurm.

python launch/submit.py --nodes 2
"""

from start import command

if __name__ == "__main__":
    command("submit")

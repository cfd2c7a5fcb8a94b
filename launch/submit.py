"""Run everything: preprocess, train, evaluate, page; on this machine, or as Slurm jobs where there is Slurm.

python launch/submit.py --nodes 2
"""

from start import command

if __name__ == "__main__":
    command("submit")

"""Check this machine: does a training that is stopped in every way come back exactly?

python launch/check.py drill
"""

from start import command

if __name__ == "__main__":
    command("p2p_dist.jobs.drill")

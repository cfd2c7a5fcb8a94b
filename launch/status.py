"""Show the state of one run or of all: stages, progress, GPU-hours used and predicted.

python launch/status.py RUN
"""

from start import command

if __name__ == "__main__":
    command("status")

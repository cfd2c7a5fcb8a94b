"""Show how a run is, or all of them: stages, progress, what it has cost and will.

python launch/status.py RUN
"""

from start import command

if __name__ == "__main__":
    command("status")

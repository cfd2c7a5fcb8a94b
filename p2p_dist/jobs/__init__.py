"""Where and how the stages run: on this machine or on Slurm. A login node imports this package, so it imports no torch."""

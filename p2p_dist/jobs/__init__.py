"""Run the stages on this machine or on Slurm. This package is imported on login nodes, so it does not import torch."""

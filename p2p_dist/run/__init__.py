"""The folder of a run: layout, lock, record of starts, list of checkpoints, copy of the code.

This package uses neither torch nor Slurm, and does not read songs or shards.
"""

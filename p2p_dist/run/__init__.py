"""A run as a folder of records: layout, lock, record of starts, list of checkpoints, copy of the code.

No torch, no Slurm, and nothing that looks into songs or shards.
"""

"""Distributed training: ranks, step, checkpoints, stopping, and the loop that ties them."""

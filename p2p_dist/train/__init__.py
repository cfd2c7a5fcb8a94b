"""Distributed training: ranks, step, checkpoints, stopping, and the training loop. Nothing here queues or evaluates."""

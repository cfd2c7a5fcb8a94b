"""Checks of a machine or a cluster before a long training. One package each.

Each has a part that starts or queues processes, and a part (ranks.py) that runs in them.
"""

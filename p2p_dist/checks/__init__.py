"""Checks of a machine or a cluster before a long training: each is one package, with what queues it and what its ranks do."""

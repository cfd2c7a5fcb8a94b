"""Stems that need no network, and what is measured of them: the rows beside every figure of a checkpoint."""

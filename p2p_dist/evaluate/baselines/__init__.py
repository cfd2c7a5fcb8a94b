"""Baseline stems, which need no network, and their measures, which are shown beside those of every checkpoint."""

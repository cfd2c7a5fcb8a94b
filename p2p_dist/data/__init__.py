"""From songs to training batches: pairs of windows, tar shards, their index, the seeded stream. No networks here."""

"""The same short training at several sizes: how speed grows with nodes."""

"""The scaling check: the same short training at several numbers of nodes."""

"""What runs where, and how it is queued. Torch-free: a login node imports it."""

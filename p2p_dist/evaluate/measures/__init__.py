"""Measures of a generated stem, from samples to means with confidence intervals. Nothing here reads a run."""

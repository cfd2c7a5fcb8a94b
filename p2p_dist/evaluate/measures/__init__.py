"""What is measured of a generated stem, from samples to means with intervals. Nothing here knows a run."""

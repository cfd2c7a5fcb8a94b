"""One short job that looks at all that a training will need."""

"""Evaluate checkpoints: measures beside their baselines, audio, spectrograms, ranking, and the page. Nothing here trains."""

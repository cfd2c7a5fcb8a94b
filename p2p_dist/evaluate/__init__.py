"""What a checkpoint sounds like: measures beside their baselines, audio, pictures, and the page."""

"""Audio to spectrograms and back: songs and stems, log-mel spectrograms, phase reconstruction. No torch, no training pairs."""

"""Sound to pictures and back: decoding stems, log-mel spectrograms, phase inversion. No torch."""

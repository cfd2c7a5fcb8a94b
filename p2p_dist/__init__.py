"""Distributed training of image-translation models on music spectrograms."""

__version__ = "0.1.0"

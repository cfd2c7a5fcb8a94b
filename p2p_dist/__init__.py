"""Distributed training of image-translation models on music spectrograms."""

__version__ = "0.2.0"

"""Distributed training of image-translation models on music spectrograms."""

import os
import sys

if sys.platform == "darwin":  # torch reads it when it is imported: what the GPU of a Mac lacks is computed on the CPU
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.2.0"

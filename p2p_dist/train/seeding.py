"""Derive all random numbers of a training from the seed and the step, so no random state needs to be saved."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def number_from(*parts: int | str) -> int:
    """Derive a seed of 63 bits from any number of values; similar values give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def noise_at(places: np.ndarray, seed: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor | None:
    """Draw the noise of the samples at these positions of the stream, N(0, 1), (batch, *shape); None without channels.

    It belongs to the place, so it is the same on any world size and after any resume. It is drawn on the host, because
    GPUs of different makers draw different numbers from one seed.
    """
    if shape[0] == 0:
        return None
    noise = torch.empty((len(places), *shape), pin_memory=device.type == "cuda")
    random = torch.Generator()
    for row, place in zip(noise, places, strict=True):
        random.manual_seed(number_from("noise", seed, int(place)))
        torch.randn(shape, generator=random, out=row)
    return noise.to(device, non_blocking=True)

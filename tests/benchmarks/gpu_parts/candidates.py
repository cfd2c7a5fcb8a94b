"""Changes that may be worth making, tried beside the program as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from p2p_dist.model import generator


class NormInBf16(nn.GroupNorm):
    """Group norm that reads and writes bf16 where the convolution before it writes bf16; it computes in float32.

    Autocast has it read and write float32 on a GPU (not on a processor), so that it and all up to the next convolution move
    twice the bytes, and the values are converted twice.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.bfloat16:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


@contextlib.contextmanager
def norm_in_bf16(wanted: bool) -> Iterator[None]:
    """Networks that are built meanwhile have this norm."""
    honest = generator.norm

    def norm(kind: str, channels: int) -> nn.Module:
        made = honest(kind, channels)
        return NormInBf16(made.num_groups, channels) if isinstance(made, nn.GroupNorm) else made

    if wanted:
        generator.norm = norm
    try:
        yield
    finally:
        generator.norm = honest

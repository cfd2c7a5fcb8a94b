"""The U-Net generator of Pix2Pix (Isola et al. 2017), and the thesis's variant of it, chosen by settings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from p2p_dist.settings.config import Model

BATCH_NORM_EPSILON = 1e-3
"""Keras's."""


class BatchNorm(nn.BatchNorm2d):
    """Batch norm on the batch's own statistics, in training and generation alike, as the thesis always used it.

    On a 1 x 1 picture in a batch of 1 there is nothing to normalise: Keras gives beta there and torch refuses. Here the
    answer is Keras's; gamma stays in the graph with a gradient of 0, because DDP waits for every parameter's gradient.
    Statistics are of the pairs that one process computes at once, so a run depends on the number of processes and on
    train.micro-batch-size: 2 processes x 4 pairs are not 1 x 8, as they are with group norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=BATCH_NORM_EPSILON, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return (x * 0) * self.weight[:, None, None] + self.bias[:, None, None]
        return super().forward(x)


def norm(kind: str, channels: int) -> nn.Module:
    """`group`: up to 8 groups, no statistics over the batch. `batch`: see BatchNorm."""
    return nn.GroupNorm(math.gcd(8, channels), channels) if kind == "group" else BatchNorm(channels)


def initialise(module: nn.Module) -> None:
    """Convolution weights from N(0, 0.02), biases 0, as in the paper and the thesis."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Down(nn.Module):
    """Halve the spectrogram: 4x4 convolution of stride 2, norm (not on the first level), leaky ReLU."""

    def __init__(self, into: int, out: int, settings: Model, normalised: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(into, out, 4, 2, 1, bias=False)
        self.norm = norm(settings.norm, out) if normalised else nn.Identity()
        self.slope = settings.leaky_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.convolution(x)), self.slope)


class FoldedConv(nn.Conv2d):
    """Nearest-neighbour doubling and a 3x3 convolution, in one transposed 4x4 convolution of stride 2.

    Both are linear, so one kernel does both: the 3x3 weights, turned round, and summed over 2x2 neighbours. It takes 4 products
    for a value where the 3x3 convolution takes 9, and no doubled input is stored: up to 3 times faster.
    """

    def __init__(self, into: int, out: int, bias: bool) -> None:
        super().__init__(into, out, 3, 1, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Contiguous: in channels_last the backward of torch's CUDA kernel for pooling leaves the padding out of account.
        kernel = F.avg_pool2d(self.weight.flip(2, 3).contiguous(), 2, 1, padding=1, divisor_override=1)
        return F.conv_transpose2d(x, kernel.transpose(0, 1), self.bias, 2, 1)


def doubling(into: int, out: int, kind: str, bias: bool) -> nn.Module:
    """Double the spectrogram: nearest neighbour and a 3x3 convolution (no checkerboard), or a transposed 4x4 convolution."""
    if kind == "transposed":
        return nn.ConvTranspose2d(into, out, 4, 2, 1, bias=bias)
    if kind == "folded":
        return nn.Sequential(nn.Identity(), FoldedConv(into, out, bias))  # named like the parameters of the other
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(into, out, 3, 1, 1, bias=bias))


class Up(nn.Module):
    """Double the spectrogram, norm, drop-out where asked, ReLU."""

    def __init__(self, into: int, out: int, settings: Model, dropout: float) -> None:
        super().__init__()
        self.doubling = doubling(into, out, settings.upsample, bias=False)
        self.norm = norm(settings.norm, out)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.doubling(x))
        if self.dropout:
            # Always on: the paper and the thesis draw their variety from it, in generation too.
            x = F.dropout(x, self.dropout, training=True)
        return F.relu(x)


class Generator(nn.Module):
    """U-Net: `depth` halvings, as many doublings, a skip from each level down to the same level up, tanh.

    forward(input, noise): input (batch, channels, mels, frames) from -1 to 1; noise (batch, noise_channels, mels,
    frames) from N(0, 1), or None where the settings have none. Returns the picture of the target, shaped like input.
    """

    def __init__(self, settings: Model, pictures: int = 1) -> None:
        super().__init__()
        self.noise_channels, self.dropout = settings.noise_channels, settings.dropout
        self.batch_norm = settings.norm == "batch"
        widths = [min(settings.channels * 2**level, settings.max_channels) for level in range(settings.depth)]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            into = widths[level - 1] if level else pictures + settings.noise_channels
            self.down.append(Down(into, width, settings, normalised=level > 0))
        self.up = nn.ModuleList()
        for level in reversed(range(settings.depth - 1)):
            into = widths[-1] if level == settings.depth - 2 else 2 * widths[level + 1]
            dropped = settings.dropout if level >= settings.depth - 4 else 0.0
            self.up.append(Up(into, widths[level], settings, dropped))
        last = 2 * widths[0] if settings.depth > 1 else widths[0]
        self.last = doubling(last, pictures, settings.upsample, bias=True)
        self.apply(initialise)

    def forward(self, input: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        x = input if noise is None else torch.cat((input, noise), dim=1)
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = torch.cat((up(x), skip), dim=1)
        return torch.tanh(self.last(x).to(input.dtype))  # losses are computed in full precision

"""The U-Net generator of Pix2Pix (Isola et al. 2017). Settings select the thesis's variant."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from p2p_dist.settings.config import Model

BATCH_NORM_EPSILON = 1e-3
"""The default of Keras."""


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that uses the statistics of the current batch in training and in generation, as in the thesis.

    For a single value per channel (batch of 1, 1 x 1) Keras returns beta and torch raises an error. This class returns
    beta; gamma stays in the graph with a gradient of 0, because DDP waits for the gradient of every parameter.
    The statistics are those of one micro-batch on one process, so results depend on the number of processes and on
    train.micro-batch-size: 2 processes x 4 pairs differ from 1 x 8, and with uneven shares (2 x 3 and 1 x 2) the statistics of
    a smaller share are noisier. With group norm none of this changes a result.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=BATCH_NORM_EPSILON, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return (x * 0) * self.weight[:, None, None] + self.bias[:, None, None]
        return super().forward(x)


def norm(kind: str, channels: int) -> nn.Module:
    """Return the norm layer. `group`: up to 8 groups, independent of the batch. `batch`: see BatchNorm."""
    return nn.GroupNorm(math.gcd(8, channels), channels) if kind == "group" else BatchNorm(channels)


def initialise(module: nn.Module) -> None:
    """Initialise convolution weights from N(0, 0.02) and biases with 0, as in the paper and the thesis.

    On the meta device there is nothing to initialise, and torch would import its compiler for it: more than a second.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Down(nn.Module):
    """Halve the resolution: 4x4 convolution of stride 2, norm (not on the first level), leaky ReLU."""

    def __init__(self, into: int, out: int, settings: Model, normalised: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(into, out, 4, 2, 1, bias=False)
        self.norm = norm(settings.norm, out) if normalised else nn.Identity()
        self.slope = settings.leaky_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.convolution(x)), self.slope)


class FoldedConv(nn.Conv2d):
    """Nearest-neighbour upsampling and a 3x3 convolution, as one transposed 4x4 convolution of stride 2.

    Both are linear, so one kernel computes both: the 3x3 weights, flipped, and summed over 2x2 neighbours. It takes 4
    multiplications per value instead of 9, and the upsampled input is not stored: up to 3 times faster.
    """

    def __init__(self, into: int, out: int, bias: bool) -> None:
        super().__init__(into, out, 3, 1, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Contiguous: in channels_last the backward of torch's CUDA pooling kernel ignores the padding.
        kernel = F.avg_pool2d(self.weight.flip(2, 3).contiguous(), 2, 1, padding=1, divisor_override=1)
        return F.conv_transpose2d(x, kernel.transpose(0, 1), self.bias, 2, 1)


def doubling(into: int, out: int, kind: str, bias: bool) -> nn.Module:
    """Double the resolution: nearest neighbour and a 3x3 convolution (no checkerboard), or a transposed 4x4 convolution."""
    if kind == "transposed":
        return nn.ConvTranspose2d(into, out, 4, 2, 1, bias=bias)
    if kind == "folded":
        return nn.Sequential(nn.Identity(), FoldedConv(into, out, bias))  # same parameter names as below
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(into, out, 3, 1, 1, bias=bias))


class Up(nn.Module):
    """Double the resolution, norm, optional drop-out, ReLU."""

    def __init__(self, into: int, out: int, settings: Model, dropout: float) -> None:
        super().__init__()
        self.doubling = doubling(into, out, settings.upsample, bias=False)
        self.norm = norm(settings.norm, out)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.doubling(x))
        if self.dropout:
            # On in generation too: in the paper and the thesis, drop-out takes the place of the noise input.
            x = F.dropout(x, self.dropout, training=True)
        return F.relu(x)


class Generator(nn.Module):
    """U-Net: `depth` levels down, `depth` levels up, a skip connection between levels of the same size, tanh.

    forward(input, noise, guide): input (batch, channels, mels, frames) from -1 to 1; noise (batch, noise_channels, mels,
    frames) from N(0, 1), or None if noise_channels is 0; guide (batch, guide_channels, mels, frames), or None without a
    sketch: the picture of the sketch, shaped and scaled like the input, then sine and cosine of the place in the beat.
    Returns the spectrogram of the target, shaped like input.

    With `residual` the output of the U-Net, r from -1 to 1, moves the sketch: r = 0 leaves it, 1 makes it the loudest, -1 the
    quietest there is. In frames in which the sketch is silent nothing moves. Before the first update, r = 0. With `keep_level`
    the result is then made as loud as the sketch, see `as_loud`.
    """

    def __init__(self, settings: Model, pictures: int = 1) -> None:
        super().__init__()
        self.noise_channels, self.dropout = settings.noise_channels, settings.dropout
        self.pictures, self.guide_channels, self.residual = pictures, settings.guide_channels(pictures), settings.residual
        self.keep_level = settings.keep_level
        self.batch_norm = settings.norm == "batch"
        widths = [min(settings.channels * 2**level, settings.max_channels) for level in range(settings.depth)]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            into = widths[level - 1] if level else pictures + settings.noise_channels + self.guide_channels
            self.down.append(Down(into, width, settings, normalised=level > 0))
        self.up = nn.ModuleList()
        for level in reversed(range(settings.depth - 1)):
            into = widths[-1] if level == settings.depth - 2 else 2 * widths[level + 1]
            dropped = settings.dropout if level >= settings.depth - 4 else 0.0
            self.up.append(Up(into, widths[level], settings, dropped))
        last = 2 * widths[0] if settings.depth > 1 else widths[0]
        self.last = doubling(last, pictures, settings.upsample, bias=True)
        self.apply(initialise)
        if self.residual:
            for parameter in self.last.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, input: torch.Tensor, noise: torch.Tensor | None = None, guide: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert (0 if guide is None else guide.shape[1]) == self.guide_channels
        seen = [part for part in (input, noise, guide) if part is not None]
        x = torch.cat(seen, dim=1) if len(seen) > 1 else input
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = torch.cat((up(x), skip), dim=1)
        output = torch.tanh(self.last(x).to(input.dtype))  # losses are computed in float32
        if guide is None or not self.residual:
            return output
        sketch = guide[:, : self.pictures]
        output = moved(sketch, output)
        return as_loud(output, sketch) if self.keep_level else output


OPEN = 0.25
"""Loudness over silence, in units of the picture, from which a frame of a sketch may be moved freely (13 dB of 105)."""


def moved(sketch: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Move a sketch by `by`, both (batch, channels, mels, frames) from -1 to 1: towards 1 if positive, towards -1 if negative.

    The result is from -1 to 1 without clipping, which would have no gradient. A frame of the sketch that is silent, -1 in all
    bands, stays silent: the residual can't fill pauses with noise.
    """
    gate = _gate(sketch)
    # Both ways have a gradient at 0, where training begins. `clamp` has none there from torch 2.15 on.
    up, down = torch.where(by < 0, 0, by), torch.where(by > 0, 0, by)
    return sketch + gate * (up * (1 - sketch) + down * (1 + sketch))


POWER = 5.25
"""Exponent of 10 that makes a picture, which spans 105 dB in 2 units, power: that of a picture of 1 is 1."""


def as_loud(output: torch.Tensor, sketch: torch.Tensor) -> torch.Tensor:
    """Make each window as loud as its sketch, both (batch, channels, mels, frames) from -1 to 1, by a gain for all its bins.

    Loudness is the mean power. A generator is too quiet where it is unsure, because it is trained with an absolute error; the
    sketch has the level that drums have in the training songs. A frame of the sketch that is silent stays silent.
    """
    loudness = [(10 ** (POWER * (one - 1))).mean(dim=(1, 2, 3), keepdim=True).log10() for one in (sketch, output)]
    return (output + _gate(sketch) * (loudness[0] - loudness[1]) / POWER).clamp(-1, 1)


def _gate(sketch: torch.Tensor) -> torch.Tensor:
    """How far a frame of a sketch may be changed, (batch, 1, 1, frames): 0 if it is silent, 1 if it is louder than `OPEN`."""
    return ((sketch.amax(dim=(1, 2), keepdim=True) + 1) / OPEN).clamp(max=1)

"""The PatchGAN discriminator of Pix2Pix: it classifies patches of 70 x 70 bins, conditioned on the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from p2p_dist.model.generator import BatchNorm, initialise
from p2p_dist.settings.config import Model

STRIDES = (2, 2, 2, 1)


class Discriminator(nn.Module):
    """Three convolutions of stride 2, one of stride 1, and one of stride 1 to a single channel of logits.

    forward(input, judged, hidden): input and judged are (batch, channels, mels, frames). Returns a list: the activations of the
    four hidden levels if `hidden`, then the logits, (batch, 1, mels / 8 - 2, frames / 8 - 2). Set `hidden` only if the
    activations are used: compiled code computes zero gradients for unused outputs.

    Spectral norm runs its power iteration in train mode only. A training step sets train mode for exactly one forward, so the
    number of iterations does not depend on freezing or gradient accumulation.
    """

    def __init__(self, settings: Model, pictures: int = 1) -> None:
        super().__init__()
        first = settings.discriminator_channels
        widths = [first, 2 * first, 4 * first, 8 * first]
        self.slope = settings.leaky_slope
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        self.batch_norm = settings.discriminator_norm == "batch"
        spectral = not self.batch_norm
        for level, width in enumerate(widths):
            into = widths[level - 1] if level else 2 * pictures
            self.convolutions.append(nn.Conv2d(into, width, 4, STRIDES[level], 1, bias=spectral))
            self.norms.append(BatchNorm(width) if level and not spectral else nn.Identity())
        self.last = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        self.apply(initialise)
        if spectral:
            for convolution in [*self.convolutions, self.last]:
                spectral_norm(convolution)

    def forward(self, input: torch.Tensor, judged: torch.Tensor, hidden: bool = True) -> list[torch.Tensor]:
        x = torch.cat((input, judged), dim=1)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            # Reading the weights runs spectral norm's power iteration, which is not precise enough in bf16.
            weights = [convolution.weight for convolution in (*self.convolutions, self.last)]
        activations = []
        for level, stride in enumerate(STRIDES):
            x = F.conv2d(x, weights[level], self.convolutions[level].bias, stride, 1)  # type: ignore[arg-type]
            x = F.leaky_relu(self.norms[level](x), self.slope)
            activations.append(x)
        logits = F.conv2d(x, weights[-1], self.last.bias, 1, 1)
        return [*(activations if hidden else ()), logits.to(input.dtype)]

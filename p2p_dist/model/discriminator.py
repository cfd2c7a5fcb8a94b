"""The PatchGAN discriminator of Pix2Pix: it classifies patches of 70 x 70 bins, given the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from p2p_dist.model.generator import BatchNorm, initialise
from p2p_dist.settings.config import Model

STRIDES = (2, 2, 2, 1)


class Discriminator(nn.Module):
    """Three convolutions of stride 2, one of stride 1, and one to a single channel of logits.

    forward(input, judged, hidden): both (batch, channels, mels, frames). Returns the activations of the four hidden levels, if
    `hidden`, and last the logits, (batch, 1, mels / 8 - 2, frames / 8 - 2). Ask only for what is used: compiled code makes
    gradients of zero for the rest.

    With spectral norm the power iteration advances in train mode only: the step puts the network there for exactly one
    forward, so that neither freezing nor gradient accumulation changes how far it gets.
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
            # Here spectral norm's power iteration runs: in bf16 it would lose the norm's digits.
            weights = [convolution.weight for convolution in (*self.convolutions, self.last)]
        activations = []
        for level, stride in enumerate(STRIDES):
            x = F.conv2d(x, weights[level], self.convolutions[level].bias, stride, 1)  # type: ignore[arg-type]
            x = F.leaky_relu(self.norms[level](x), self.slope)
            activations.append(x)
        logits = F.conv2d(x, weights[-1], self.last.bias, 1, 1)
        return [*(activations if hidden else ()), logits.to(input.dtype)]

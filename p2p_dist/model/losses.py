"""The terms of both losses. Each is a mean over the batch, so its average over ranks is the mean over the global batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def discriminator_loss(real: torch.Tensor, generated: torch.Tensor, kind: str) -> torch.Tensor:
    """The discriminator's loss. `hinge`: Lim and Ye (2017). `bce`: Goodfellow et al. (2014), not halved as in Pix2Pix."""
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + generated).mean()
    ones, zeros = torch.ones_like(real), torch.zeros_like(generated)
    return F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(generated, zeros)


def adversarial_loss(generated: torch.Tensor, kind: str) -> torch.Tensor:
    """The generator's adversarial loss: low if its outputs are classified as real."""
    if kind == "hinge":
        return -generated.mean()
    return F.binary_cross_entropy_with_logits(generated, torch.ones_like(generated))


def difference_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the differences between frames. It penalises blurred onsets, but not a constant offset."""
    return F.l1_loss(output.diff(dim=-1), target.diff(dim=-1))


def compressed_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of compressed magnitudes, which counts loud bins more than quiet ones, unlike an error in dB.

    A picture of -1 to 1 is linear in dB, so 10 ** (x - 1) is the magnitude over the ceiling's to a power: 0.38 if the picture
    spans 105 dB. Such powers, 0.3 to 0.5, are usual (Braun and Tashev 2021: A consolidated view of loss functions).
    """
    return F.mse_loss(10 ** (output - 1), 10 ** (target - 1))


HEARD = 1.15
"""Below the target's loudest bin, in units of the picture (60 dB if it spans 105 dB): changes under that are not heard."""


def flux_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - correlation over time of the flux of output and target: onsets at other times cost, other levels of all do not.

    The flux is the mean rise from frame to frame: of the lower, middle and upper third of the bands, and of all. The loss is
    the mean over these four, and over the batch. Without any onset in the target a picture's loss is a constant.
    """
    floor = target.amax(dim=(1, 2, 3), keepdim=True) - HEARD
    a, b = _flux(torch.maximum(output, floor)), _flux(torch.maximum(target, floor))
    energy = a.square().sum(dim=-1) * b.square().sum(dim=-1)
    return (1 - (a * b).sum(dim=-1) / (energy + 1e-5).sqrt()).mean()


def _flux(picture: torch.Tensor) -> torch.Tensor:
    """Mean rises (batch, 4, frames - 1) of (batch, channels, mels, frames), each minus its mean over time."""
    rises = F.relu(picture.diff(dim=-1)).mean(dim=1)
    parts = torch.stack([part.mean(dim=1) for part in (*rises.tensor_split(3, dim=1), rises)], dim=1)
    return parts - parts.mean(dim=-1, keepdim=True)


def feature_loss(generated: list[torch.Tensor], real: list[torch.Tensor]) -> torch.Tensor:
    """Feature matching (Wang et al. 2018, pix2pixHD eq. 4): mean absolute error of the hidden activations.

    The last element of each list, the logits, is ignored. Activations in bf16 are converted to the precision of the logits.
    """
    precision = generated[-1].dtype
    terms = [F.l1_loss(a.to(precision), b.detach().to(precision)) for a, b in zip(generated[:-1], real[:-1], strict=True)]
    return torch.stack(terms).mean()

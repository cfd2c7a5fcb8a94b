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


def feature_loss(generated: list[torch.Tensor], real: list[torch.Tensor]) -> torch.Tensor:
    """Feature matching (Wang et al. 2018, pix2pixHD eq. 4): mean absolute error of the hidden activations.

    The last element of each list, the logits, is ignored. Activations in bf16 are converted to the precision of the logits.
    """
    precision = generated[-1].dtype
    terms = [F.l1_loss(a.to(precision), b.detach().to(precision)) for a, b in zip(generated[:-1], real[:-1], strict=True)]
    return torch.stack(terms).mean()

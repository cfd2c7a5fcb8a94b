"""The terms of the two losses. Each is a mean over the batch, so the average over ranks is that of the global batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def discriminator_loss(real: torch.Tensor, generated: torch.Tensor, kind: str) -> torch.Tensor:
    """Real logits up, generated ones down. `hinge`: Lim and Ye (2017); `bce`: Goodfellow et al. (2014), not halved."""
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + generated).mean()
    ones, zeros = torch.ones_like(real), torch.zeros_like(generated)
    return F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(generated, zeros)


def adversarial_loss(generated: torch.Tensor, kind: str) -> torch.Tensor:
    """The generator's loss on the logits of its outputs, which should be classified as real."""
    if kind == "hinge":
        return -generated.mean()
    return F.binary_cross_entropy_with_logits(generated, torch.ones_like(generated))


def difference_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the difference from frame to frame: blurred onsets cost, a level offset does not."""
    return F.l1_loss(output.diff(dim=-1), target.diff(dim=-1))


def feature_loss(generated: list[torch.Tensor], real: list[torch.Tensor]) -> torch.Tensor:
    """Feature matching (Wang et al. 2018, pix2pixHD eq. 4): mean absolute error of the hidden activations.

    The last of each list, the logits, is left out. Activations in bf16 are compared in the logits' precision.
    """
    precision = generated[-1].dtype
    terms = [F.l1_loss(a.to(precision), b.detach().to(precision)) for a, b in zip(generated[:-1], real[:-1], strict=True)]
    return torch.stack(terms).mean()

"""One update of both networks, in the paper's order (Isola et al. 2017, section 3.3)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from p2p_dist.model import losses
from p2p_dist.settings.config import Train
from p2p_dist.train.networks import Networks, update
from p2p_dist.train.profile import labelled


class Share(NamedTuple):
    """The pairs of one forward and backward (a micro-batch).

    input, target: (batch, channels, mels, frames) from -1 to 1. noise: (batch, noise_channels, mels, frames) or None.
    guide: (batch, guide_channels, mels, frames) or None, see `Generator`.
    """

    input: torch.Tensor
    target: torch.Tensor
    noise: torch.Tensor | None
    guide: torch.Tensor | None = None


def split(
    input: torch.Tensor, target: torch.Tensor, noise: torch.Tensor | None, guide: torch.Tensor | None, size: int | None
) -> list[Share]:
    """Split a process's share of the global batch into micro-batches of at most `size` pairs."""
    size = size or len(input)
    parts = -(-len(input) // size)
    noises, guides = (more.split(size) if more is not None else [None] * parts for more in (noise, guide))
    return [Share(*each) for each in zip(input.split(size), target.split(size), noises, guides, strict=True)]


def train_step(
    networks: Networks,
    input: torch.Tensor,
    target: torch.Tensor,
    noise: torch.Tensor | None,
    train: Train,
    dropout_seed: int | None,
    weight: float = 1.0,
    guide: torch.Tensor | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Update both networks: discriminator on the detached output, then generator against the updated discriminator.

    The generator runs forward once. With micro-batches (`train.micro_batch_size`) it runs forward twice, with the same noise:
    keeping the graphs of all micro-batches until the discriminator is updated would save no memory.

    If a loss or gradient is not finite on any rank, the step changes nothing. See `Networks.bad` and `keep`.

    Args:
        input, target: (batch, pictures, mels, frames) from -1 to 1. noise: (batch, noise_channels, mels, frames) or None.
        dropout_seed: seed of the drop-out mask, used only by models with drop-out. None: torch's random generator is not
            seeded, because a CUDA graph can't do so: the caller seeds it before each replay.
        weight: weight of this process's gradients in the average over all processes: its number of pairs relative to the mean
            over the processes (`Stream.weight`). With it the averaged gradient is that of the global batch, also if shares
            differ; with batch norm (preset thesis) it is not, see `generator.BatchNorm`.
        guide: (batch, guide_channels, mels, frames) or None. The discriminator does not see it.

    Returns:
        the losses and gradient norms, 0-dimensional, and flags (2,): whether anything was not finite on any rank so far,
        and whether a loss on this rank was not finite. All stay on the device.
    """
    shares = split(input, target, noise, guide, train.micro_batch_size)
    means = [len(share.input) / len(input) for share in shares]
    weights = [weight * mean for mean in means]
    last = len(shares) - 1
    networks.keep()

    def generate(number: int, generator: nn.Module) -> torch.Tensor:
        if networks.generator.dropout and dropout_seed is not None:
            torch.manual_seed(dropout_seed + number)
        with labelled("forward"), networks.autocast():
            return generator(shares[number].input, shares[number].noise, shares[number].guide)

    with reduced(networks.parallel_generator, last == 0):
        with torch.set_grad_enabled(last == 0):
            output = generate(0, networks.parallel_generator if last == 0 else networks.generator)

    terms: dict[str, torch.Tensor] = {}
    networks.discriminator.train()  # spectral norm runs one power iteration, in the first forward only
    networks.discriminator.zero_grad()
    for number, share in enumerate(shares):
        if number:
            with torch.no_grad():
                output = generate(number, networks.generator)
        with reduced(networks.parallel_discriminator, number == last):
            _add(terms, discriminator_backward(networks, share, output, train.adversarial_loss, weights[number]), means[number])
        networks.discriminator.eval()
    with labelled("update"):
        bad, terms["discriminator_gradient"] = update(networks.discriminator, networks.discriminator_optimiser, networks.bad)

    # Frozen, and called without DDP: the generator's gradient passes through it; its own gradient is not needed.
    networks.discriminator.requires_grad_(False)
    networks.generator.zero_grad()
    for number, share in enumerate(shares):
        with reduced(networks.parallel_generator, number == last):
            if last:
                output = generate(number, networks.parallel_generator)
            _add(terms, generator_backward(networks, share, output, train, weights[number]), means[number])
    networks.discriminator.requires_grad_(True)
    with labelled("update"):
        bad, terms["generator_gradient"] = update(networks.generator, networks.generator_optimiser, bad)

    with labelled("update"), torch.no_grad():
        moved = average_share(networks, train) * (1 - bad)
        parameters = dict(networks.generator.named_parameters())
        for name, average in networks.average.items():
            average.lerp_(parameters[name], moved)
        networks.bad.copy_(bad)  # in place: the next replay of a CUDA graph reads it from the same memory
        here = ~torch.isfinite(terms["discriminator"] + terms["generator"])
    return terms, torch.stack((bad, here.to(bad.dtype)))


def average_share(networks: Networks, train: Train) -> torch.Tensor:
    """Return how far the moving average moves to the weights of this update, 0-dimensional: 1 - decay.

    With `ema_warmup` the decay of update n, counted from 1, is at most (1 + n) / (10 + n), as in TensorFlow's
    ExponentialMovingAverage. With a decay of 0.999 alone, 600 updates would leave 55 % of the average to the first, random
    weights. n is the optimiser's count: it is in the checkpoint, and on the device, where a CUDA graph reads it.
    """
    count = next(iter(networks.generator_optimiser.state.values()))["step"]
    share = torch.full_like(count, 1 - train.ema)
    return torch.maximum(share, 9 / (10 + count)) if train.ema_warmup else share


def discriminator_backward(
    networks: Networks, share: Share, output: torch.Tensor, adversarial_loss: str, weight: float
) -> dict[str, torch.Tensor]:
    """Accumulate the discriminator's gradients for `share`; return its loss."""
    input, target, output = share.input, share.target, output.detach()
    discriminator = networks.parallel_discriminator
    with labelled("forward"), networks.autocast():
        if networks.discriminator.batch_norm:
            # Separately, as in the thesis: in one batch, batch norm would separate real from generated by their statistics.
            real, generated = (discriminator(input, picture, hidden=False)[-1] for picture in (target, output))
        else:
            both = discriminator(torch.cat((input, input)), torch.cat((target, output)), hidden=False)[-1]
            real, generated = both.chunk(2)
    loss = losses.discriminator_loss(real, generated, adversarial_loss)
    backward(loss, weight)
    return {"discriminator": loss.detach()}


def generator_backward(
    networks: Networks, share: Share, output: torch.Tensor, train: Train, weight: float
) -> dict[str, torch.Tensor]:
    """Accumulate the generator's gradients for `share`; return the terms of its loss, and their weighted sum."""
    discriminator = networks.discriminator
    with labelled("forward"), networks.autocast():
        judged = discriminator(share.input, output, hidden=train.feature_weight > 0)
    terms = {
        "adversarial": losses.adversarial_loss(judged[-1], train.adversarial_loss),
        "l1": torch.nn.functional.l1_loss(output, share.target),
    }
    loss = terms["adversarial"] + train.l1_weight * terms["l1"]
    if train.difference_weight:
        terms["difference"] = losses.difference_loss(output, share.target)
        loss = loss + train.l1_weight * train.difference_weight * terms["difference"]
    if train.compressed_weight:
        terms["compressed"] = losses.compressed_loss(output, share.target)
        loss = loss + train.l1_weight * train.compressed_weight * terms["compressed"]
    if train.flux_weight:
        terms["flux"] = losses.flux_loss(output, share.target)
        loss = loss + train.l1_weight * train.flux_weight * terms["flux"]
    if train.feature_weight:
        with labelled("forward"), torch.no_grad(), networks.autocast():
            known = discriminator(share.input, share.target)
        terms["feature"] = losses.feature_loss(judged, known)
        loss = loss + train.feature_weight * terms["feature"]
    backward(loss, weight)
    return {**{name: term.detach() for name, term in terms.items()}, "generator": loss.detach()}


def backward(loss: torch.Tensor, weight: float) -> None:
    """Run the backward of `weight` x loss. A loss that is not finite makes all gradients not finite.

    Otherwise a loss could overflow while its gradient does not (the gradient of L1 is a sign). This way the all-reduce of the
    gradients also tells all ranks about a bad loss on one of them.
    """
    with labelled("backward"):
        loss.backward(loss.detach() * 0 + weight)


def reduced(module: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Context for forward and backward: all-reduce the gradients only if `now`. DDP decides this in the forward."""
    if now or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


def _add(terms: dict[str, torch.Tensor], more: dict[str, torch.Tensor], weight: float) -> None:
    """Add the means over one micro-batch, weighted, so that the sums are means over the whole batch."""
    for name, value in more.items():
        terms[name] = terms[name] + weight * value if name in terms else weight * value

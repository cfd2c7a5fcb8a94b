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


class Share(NamedTuple):
    """The pairs of one forward and backward (a micro-batch).

    input, target: (batch, pictures, mels, frames) from -1 to 1. noise: (batch, noise_channels, mels, frames) or None.
    """

    input: torch.Tensor
    target: torch.Tensor
    noise: torch.Tensor | None


def split(input: torch.Tensor, target: torch.Tensor, noise: torch.Tensor | None, size: int | None) -> list[Share]:
    """Split a process's share of the global batch into micro-batches of at most `size` pairs."""
    size = size or len(input)
    noises = noise.split(size) if noise is not None else [None] * -(-len(input) // size)
    return [Share(*parts) for parts in zip(input.split(size), target.split(size), noises, strict=True)]


def train_step(
    networks: Networks,
    input: torch.Tensor,
    target: torch.Tensor,
    noise: torch.Tensor | None,
    train: Train,
    dropout_seed: int | None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Update both networks: discriminator on the detached output, then generator against the updated discriminator.

    The generator runs forward once. Only where the batch is computed in parts (`train.micro_batch_size`) it runs once more,
    with the same noise, since keeping all parts' graphs until the discriminator is updated would save no memory.

    A step whose losses or gradients are not all finite on every rank changes nothing: see `Networks.bad` and `keep`.

    Args:
        input, target: (batch, pictures, mels, frames) from -1 to 1. noise: (batch, noise_channels, mels, frames) or None.
        dropout_seed: of the drop-out mask; only models that drop draw from it. None: the mask is drawn from torch's state as
            it is, for a step captured as a graph, which can't seed: one seeds before each replay.

    Returns:
        the losses and gradient norms, 0-dimensional, and flags (2,): whether anything was not finite on any rank up to
        here, and whether a loss of this rank was not. All on the device, not yet read.
    """
    shares = split(input, target, noise, train.micro_batch_size)
    weights = [len(share.input) / len(input) for share in shares]
    last = len(shares) - 1
    networks.keep()

    def generate(number: int, generator: nn.Module) -> torch.Tensor:
        if networks.generator.dropout and dropout_seed is not None:
            torch.manual_seed(dropout_seed + number)
        with networks.autocast():
            return generator(shares[number].input, shares[number].noise)

    with reduced(networks.parallel_generator, last == 0):
        with torch.set_grad_enabled(last == 0):
            output = generate(0, networks.parallel_generator if last == 0 else networks.generator)

    terms: dict[str, torch.Tensor] = {}
    networks.discriminator.train()  # spectral norm takes one power iteration, in the first forward only
    networks.discriminator.zero_grad()
    for number, share in enumerate(shares):
        if number:
            with torch.no_grad():
                output = generate(number, networks.generator)
        with reduced(networks.parallel_discriminator, number == last):
            _add(
                terms, discriminator_backward(networks, share, output, train.adversarial_loss, weights[number]), weights[number]
            )
        networks.discriminator.eval()
    bad, terms["discriminator_gradient"] = update(networks.discriminator, networks.discriminator_optimiser, networks.bad)

    # Frozen, and past DDP: the generator's gradient goes through it, its own is not needed and so never reduced.
    networks.discriminator.requires_grad_(False)
    networks.generator.zero_grad()
    for number, share in enumerate(shares):
        with reduced(networks.parallel_generator, number == last):
            if last:
                output = generate(number, networks.parallel_generator)
            _add(terms, generator_backward(networks, share, output, train, weights[number]), weights[number])
    networks.discriminator.requires_grad_(True)
    bad, terms["generator_gradient"] = update(networks.generator, networks.generator_optimiser, bad)

    with torch.no_grad():
        moved = (1 - train.ema) * (1 - bad)
        parameters = dict(networks.generator.named_parameters())
        for name, average in networks.average.items():
            average.lerp_(parameters[name], moved)
        networks.bad.copy_(bad)  # in its place, for a graph of the GPU, which reads it there in the next step
        here = ~torch.isfinite(terms["discriminator"] + terms["generator"])
    return terms, torch.stack((bad, here.to(bad.dtype)))


def discriminator_backward(
    networks: Networks, share: Share, output: torch.Tensor, adversarial_loss: str, weight: float
) -> dict[str, torch.Tensor]:
    """Add the discriminator's gradients for `share` to the existing ones; return its loss."""
    input, target, output = share.input, share.target, output.detach()
    discriminator = networks.parallel_discriminator
    with networks.autocast():
        if networks.discriminator.batch_norm:
            # Apart, as the thesis does: in one batch the norm would tell true from generated by their statistics.
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
    """Add the generator's gradients for `share` to the existing ones; return the terms of its loss, and the sum."""
    discriminator = networks.discriminator
    with networks.autocast():
        judged = discriminator(share.input, output, hidden=train.feature_weight > 0)
    terms = {
        "adversarial": losses.adversarial_loss(judged[-1], train.adversarial_loss),
        "l1": torch.nn.functional.l1_loss(output, share.target),
    }
    loss = terms["adversarial"] + train.l1_weight * terms["l1"]
    if train.difference_weight:
        terms["difference"] = losses.difference_loss(output, share.target)
        loss = loss + train.l1_weight * train.difference_weight * terms["difference"]
    if train.feature_weight:
        with torch.no_grad(), networks.autocast():
            known = discriminator(share.input, share.target)
        terms["feature"] = losses.feature_loss(judged, known)
        loss = loss + train.feature_weight * terms["feature"]
    backward(loss, weight)
    return {**{name: term.detach() for name, term in terms.items()}, "generator": loss.detach()}


def backward(loss: torch.Tensor, weight: float) -> None:
    """Backward of `weight` x loss; a loss that is not finite makes every gradient not finite.

    Else a loss could overflow while its gradient does not (that of an L1 is a sign). So the all-reduce of the gradients
    also tells every rank of a bad loss on one.
    """
    loss.backward(loss.detach() * 0 + weight)


def reduced(module: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Whether the backward of a forward inside ends in an all-reduce; DDP decides that in the forward."""
    if now or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


def _add(terms: dict[str, torch.Tensor], more: dict[str, torch.Tensor], weight: float) -> None:
    """Add the means over one part, so that the sums are means over the whole."""
    for name, value in more.items():
        terms[name] = terms[name] + weight * value if name in terms else weight * value

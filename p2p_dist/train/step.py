"""The two networks with their optimisers, and one update of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from p2p_dist.config import Config
from p2p_dist.model import losses
from p2p_dist.model.discriminator import Discriminator
from p2p_dist.model.generator import Generator
from p2p_dist.train.distributed import Ranks, equalise, wrap


@dataclass
class Networks:
    """Everything that a step changes.

    generator, discriminator: the modules themselves; parallel_*: what DDP wraps them in, with several processes.
    average: the moving average of the generator's parameters by name, or empty.
    """

    generator: Generator
    discriminator: Discriminator
    parallel_generator: nn.Module
    parallel_discriminator: nn.Module
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    average: dict[str, torch.Tensor]

    def state(self) -> dict[str, Any]:
        """Everything to go on with, as nested dictionaries of tensors and numbers."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_optimiser": self.generator_optimiser.state_dict(),
            "discriminator_optimiser": self.discriminator_optimiser.state_dict(),
            "average": self.average,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.generator_optimiser.load_state_dict(state["generator_optimiser"])
        self.discriminator_optimiser.load_state_dict(state["discriminator_optimiser"])
        for name, tensor in self.average.items():
            tensor.copy_(state["average"][name])

    def to_evaluate(self) -> dict[str, torch.Tensor]:
        """The weights of the generator to evaluate: its moving average where there is one."""
        return {**self.generator.state_dict(), **self.average}


def build(config: Config, ranks: Ranks) -> Networks:
    """Both networks, equal on all ranks: made under one seed, then rank 0's weights and buffers are broadcast."""
    torch.manual_seed(config.train.seed)
    generator = Generator(config.model).to(ranks.device)
    discriminator = Discriminator(config.model).to(ranks.device)
    for module in (generator, discriminator):
        equalise(module, ranks)
    settings: dict[str, Any] = {
        "lr": config.train.learning_rate,
        "betas": (config.train.beta1, 0.999),
        "eps": config.train.epsilon,
        "fused": True,
    }
    average = {}
    if config.train.ema:
        average = {name: tensor.detach().clone() for name, tensor in generator.named_parameters()}
    return Networks(
        generator,
        discriminator,
        wrap(generator, ranks),
        wrap(discriminator, ranks),
        torch.optim.Adam(generator.parameters(), **settings),
        torch.optim.Adam(discriminator.parameters(), **settings),
        average,
    )


def number_from(*parts: int | str) -> int:
    """A seed of 63 bits from any number of parts; close parts give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def noise_at(places: np.ndarray, seed: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor | None:
    """Noise of the samples at these places of the stream, N(0, 1), (batch, *shape); None where shape has no channels.

    It belongs to the place, so it is the same on any world size and after any resume.
    """
    if shape[0] == 0:
        return None
    rows = []
    for place in places:
        random = torch.Generator().manual_seed(number_from("noise", seed, int(place)))
        rows.append(torch.randn(shape, generator=random))
    return torch.stack(rows).to(device, non_blocking=True)


def train_step(
    networks: Networks,
    input: torch.Tensor,
    target: torch.Tensor,
    noise: torch.Tensor | None,
    config: Config,
    dropout_seed: int,
) -> dict[str, torch.Tensor]:
    """One update of both networks, as in the paper: one forward of the generator, discriminator step, generator step.

    A step whose gradients are not all finite changes neither optimiser state nor weights of the network concerned.

    Args:
        input, target: (batch, 1, mels, frames) from -1 to 1. noise: (batch, noise_channels, mels, frames) or None.
        dropout_seed: of the drop-out mask; only models that drop draw from it.

    Returns:
        0-dimensional tensors on the device, not yet read: the losses, and `bad`, 1 where something was not finite.
    """
    settings = config.train
    if config.model.dropout:
        torch.manual_seed(dropout_seed)
    discriminator = networks.discriminator
    output = networks.parallel_generator(input, noise)

    # One forward of the discriminator in train mode a step: there its spectral norm takes one power iteration.
    discriminator.train()
    real = networks.parallel_discriminator(input, target)[-1]
    discriminator.eval()
    generated = networks.parallel_discriminator(input, output.detach())[-1]
    discriminator_loss = losses.discriminator_loss(real, generated, settings.adversarial_loss)
    networks.discriminator_optimiser.zero_grad()
    discriminator_loss.backward()
    bad_discriminator = _update(networks.discriminator_optimiser)

    discriminator.requires_grad_(False)  # and past DDP: no gradient of it is needed, so none is reduced
    judged = discriminator(input, output)
    terms = {
        "adversarial": losses.adversarial_loss(judged[-1], settings.adversarial_loss),
        "l1": torch.nn.functional.l1_loss(output, target),
    }
    generator_loss = terms["adversarial"] + settings.l1_weight * terms["l1"]
    if settings.difference_weight:
        terms["difference"] = losses.difference_loss(output, target)
        generator_loss = generator_loss + settings.l1_weight * settings.difference_weight * terms["difference"]
    if settings.feature_weight:
        with torch.no_grad():
            known = discriminator(input, target)
        terms["feature"] = losses.feature_loss(judged, known)
        generator_loss = generator_loss + settings.feature_weight * terms["feature"]
    networks.generator_optimiser.zero_grad()
    generator_loss.backward()
    discriminator.requires_grad_(True)
    bad_generator = _update(networks.generator_optimiser)

    with torch.no_grad():
        share = (1 - settings.ema) * (1 - bad_generator)
        for name, parameter in networks.generator.named_parameters():
            if name in networks.average:
                networks.average[name].lerp_(parameter, share)
    terms["discriminator"], terms["generator"] = discriminator_loss, generator_loss
    return {
        **{name: term.detach() for name, term in terms.items()},
        "bad": torch.maximum(bad_discriminator, bad_generator),
    }


def _update(optimiser: torch.optim.Adam) -> torch.Tensor:
    """Step, unless a gradient is not finite: that stays on the device, as the fused optimiser's `found_inf`.

    After DDP's all-reduce the gradients, and so the answer, are the same on every rank.
    """
    gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    sizes = torch.stack(torch._foreach_norm(gradients))
    bad = (~torch.isfinite(sizes).all()).float()
    optimiser.found_inf = bad  # type: ignore[attr-defined]
    optimiser.step()
    return bad

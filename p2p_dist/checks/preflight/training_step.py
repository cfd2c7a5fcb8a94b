"""One real update of small networks, to check that the installed torch has everything that a training uses.

A cluster often has its own, older torch, built for its GPUs. Missing functions should be found before a job waits in a queue.
The check also finds kernels that do not run on the GPU, and gradients that are not reduced.
"""

from __future__ import annotations

import torch

from p2p_dist.settings import presets
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import build
from p2p_dist.train.step import train_step

PAIRS = 2
"""Pairs of each process."""


def one_step(ranks: Ranks) -> str:
    """Build the networks of the preset tiny and update them once; return a description.

    Raises:
        ValueError: a loss is not finite, or a network did not change.
        Exception: any error that torch raises for a missing function.
    """
    tiny = presets.preset("tiny")
    shape = (PAIRS, tiny.data.picture_channels, tiny.data.mels, tiny.data.frames)
    networks = build(tiny, ranks)
    modules = {"generator": networks.generator, "discriminator": networks.discriminator}
    before = {name: _weights(module) for name, module in modules.items()}
    input, target = (torch.rand(shape, device=ranks.device) * 2 - 1 for _ in range(2))
    noise = torch.randn((PAIRS, tiny.model.noise_channels, *shape[2:]), device=ranks.device)
    losses, flags = train_step(networks, input, target, noise, tiny.train, 0)
    if bool(flags.any()) or not all(bool(torch.isfinite(loss)) for loss in losses.values()):
        raise ValueError(f"losses are not finite: { ({name: float(loss) for name, loss in losses.items()}) }")
    if still := [name for name, module in modules.items() if torch.equal(_weights(module), before[name])]:
        raise ValueError(f"the {still[0]} did not change")
    return f"one update of both networks on {ranks.device.type} in {networks.precision}"


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

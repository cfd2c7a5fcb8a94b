"""One real update of small networks, to check that the installed torch has everything that a training uses.

A cluster often has its own, older torch, built for its GPUs. Missing functions should be found before a job waits in a queue.
The check also finds kernels that do not run on the GPU, that compute wrong gradients there, and gradients that are not reduced.
"""

from __future__ import annotations

import dataclasses

import torch

from p2p_dist.settings import presets
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import build
from p2p_dist.train.step import train_step

PAIRS = 2
"""Pairs of each process."""

ALONE = Ranks(0, 1, 0, torch.device("cpu"), None)

APART = 0.2
"""How far gradients may be from those of the processor in float32, relatively. Those in bf16 are 0.03 to 0.08 apart; with a
kernel that leaves out the padding, as torch's pooling in channels_last on NVIDIA GPUs does, they were 0.4 apart."""


def one_step(ranks: Ranks) -> str:
    """Build the networks of the preset tiny and update them once; return a description.

    Raises:
        ValueError: a loss is not finite, a network did not change, or its gradients on the GPU are wrong.
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
    done = f"one update of both networks on {ranks.device.type} in {networks.precision}"
    return done if ranks.device.type == "cpu" else f"{done}, {compared(ranks)}"


def compared(ranks: Ranks) -> str:
    """Compare the first gradients of the preset tiny, as they are computed here, with those of the processor in float32.

    Raises:
        ValueError: they are too far apart.
    """
    here, true = gradients(ranks, "auto"), gradients(ALONE, "fp32")
    most = 0.0
    for name, expected in true.items():
        apart = float((here[name] - expected).norm() / expected.norm())
        if not apart < APART:
            raise ValueError(
                f"gradients of the {name} on {ranks.device.type} have a relative error of {apart:.2g} (at most {APART:g}), "
                "compared with the CPU: a GPU kernel is wrong. Try --train.layout contiguous or --train.precision fp32"
            )
        most = max(most, apart)
    return f"relative error of its gradients, compared with the CPU: {most:.1g}"


def gradients(ranks: Ranks, precision: str) -> dict[str, torch.Tensor]:
    """Return the gradients of both networks in the first update, on the host. They are the same for any number of processes.

    The learning rate is almost 0, because the generator's gradient depends on the update of the discriminator before it.
    """
    tiny = presets.preset("tiny")
    train = dataclasses.replace(tiny.train, learning_rate=1e-12, precision=precision)  # type: ignore[arg-type]
    networks = build(dataclasses.replace(tiny, train=train), ranks)
    random = torch.Generator().manual_seed(0)
    shape = (PAIRS, tiny.data.picture_channels, tiny.data.mels, tiny.data.frames)
    input, target = ((torch.rand(shape, generator=random) * 2 - 1).to(ranks.device) for _ in range(2))
    noise = torch.randn((PAIRS, tiny.model.noise_channels, *shape[2:]), generator=random).to(ranks.device)
    train_step(networks, input, target, noise, train, 0)
    found = {}
    for name, module in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        found[name] = torch.cat([parameter.grad.flatten().cpu() for parameter in module.parameters()])  # type: ignore[union-attr]
    return found


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

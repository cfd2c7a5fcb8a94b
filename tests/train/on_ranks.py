"""What tests run on the ranks of a training; in a module of its own because ranks import it by name."""

from __future__ import annotations

import dataclasses
import os
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from p2p_dist.data import stream
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from p2p_dist.train import capture, checkpoint, distributed, loop, networks, nonfinite, seeding, speed, step

CPU = distributed.Ranks(0, 1, 0, torch.device("cpu"), None)
"""The place of a process that trains alone."""


def train(folder: Path, die_after: int | None = None, sabotage: Callable[[], None] | None = None) -> int:
    """Train the run in `folder`; end like a kill right after update `die_after`.

    Args:
        sabotage: called first, to remove a line of the mechanism under test.
    """
    speed.flops_per_image = lambda config: 10**9  # counting takes as long as twenty steps of these small networks
    if sabotage is not None:
        sabotage()
    if die_after is not None:
        honest, done = capture.train_step, [checkpoint.newest_step(RunDir(folder).checkpoints)]

        def mortal(*arguments: Any, **named: Any) -> Any:
            if done[0] == die_after:
                for thread in threading.enumerate():
                    if thread.name.startswith("checkpoint"):  # so that it is known from where the next start goes on
                        thread.join()
                os._exit(9)
            done[0] += 1
            return honest(*arguments, **named)

        capture.train_step = mortal
    run = RunDir(folder)
    return loop.train(run, rundir.read_settings(run))


def state(folder: Path, step: int) -> list[torch.Tensor]:
    """Every tensor of the checkpoint at a step, in a fixed order."""
    path = RunDir(folder).checkpoints / rundir.step_name(step)
    return list(checkpoint.tensors(torch.load(path / checkpoint.STATE, weights_only=True)))


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    """Bit for bit."""
    return len(first) == len(second) > 0 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def digests(run: RunDir) -> list[str]:
    """The digest of each global batch of a run, in order."""
    return [digest for row in metrics_file.read(run) for digest in row["digests"].split()]


def batch_of(config: Config, size: int, begin: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Input, target and noise of `size` pairs: pair n is the same whatever the batch that it is in."""
    shape = (config.data.mels, config.data.frames)
    made = []
    for number in range(begin, begin + size):
        random = torch.Generator().manual_seed(number)
        smooth = torch.rand(1, 1, 8, 8, generator=random) * 2 - 1
        target = torch.nn.functional.interpolate(smooth, shape, mode="bicubic").clamp(-1, 1)[0]
        input = (target + 0.3 * torch.randn(1, *shape, generator=random)).clamp(-1, 1)
        made.append((input, target, torch.randn(config.model.noise_channels, *shape, generator=random)))
    return [torch.stack(parts).to(dtype) for parts in zip(*made, strict=True)]


def one_step(
    config: Config,
    size: int,
    steps: int = 1,
    dtype: torch.dtype = torch.float32,
    sabotage: Callable[..., None] | None = None,
    seed_ranks: bool = False,
) -> dict[str, Any]:
    """Updates of a global batch of `size` shared by the ranks. Returns gradients, weights, buffers and losses."""
    if seed_ranks:
        torch.manual_seed(1000 + int(os.environ["RANK"]))
        config = dataclasses.replace(
            config, train=dataclasses.replace(config.train, seed=config.train.seed + int(os.environ["RANK"]))
        )
    if dtype is torch.float64:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, ema=0.0))
    if sabotage is not None:
        sabotage()
    ranks, _ = distributed.start()
    built = networks.build(config, ranks)
    if dtype is torch.float64:
        built.generator_optimiser = networks.new_adam(built.generator.double(), config.train)
        built.discriminator_optimiser = networks.new_adam(built.discriminator.double(), config.train)
    input, target, noise = batch_of(config, size, 0, dtype)
    places = stream.positions(0, size, ranks.rank, ranks.world_size).tolist()
    mine, weight = slice(places[0], places[-1] + 1), len(places) * ranks.world_size / size
    reduced = count_reductions(built, config)
    for number in range(steps):
        noise_now = noise[mine] if config.model.noise_channels else None
        terms, flags = step.train_step(built, input[mine], target[mine], noise_now, config.train, number, weight)
        assert not flags.any()
    return {
        "generator": gradients(built.generator),
        "discriminator": gradients(built.discriminator),
        "weights": {n: t.clone() for m in (built.generator, built.discriminator) for n, t in m.state_dict().items()},
        "average": built.average,
        "buffers": dict(built.discriminator.named_buffers()),
        "terms": {name: value.item() for name, value in terms.items()},
        "averaged": loop.average_over_ranks(terms, ranks, weight),
        "reductions": sum(reduced.values()) / steps,
    }


def count_reductions(built: networks.Networks, config: Config) -> dict[str, int]:
    """Counts the all-reduces of gradients from here on."""
    counts = {"generator": 0, "discriminator": 0}
    for name in counts:
        module = getattr(built, f"parallel_{name}")
        if isinstance(module, DistributedDataParallel) and config.train.gradient_precision == "fp32":

            def hook(state, bucket, name=name):  # DDP refuses annotations that are strings
                counts[name] += 1
                return allreduce_hook(state, bucket)

            module.register_comm_hook(None, hook)
    return counts


def gradients(module: torch.nn.Module) -> torch.Tensor:
    """All gradients as one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def relative_error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true.double()).norm() / true.double().norm())


def bad_step(
    config: Config, kind: str, at_once: bool = False, sabotage: Callable[[], None] | None = None
) -> tuple[list[str], str]:
    """A good update, then one spoiled on the last rank, then a good one again, watched as in the loop.

    Args:
        kind: what is not finite: `input`, `target`, or `gradient` (the generator's alone, after the discriminator's step).
        at_once: whether the bad update is the last before numbers are shown or saved.

    Returns:
        names of the tensors that are not bit for bit what they were before the bad step, and what the watch said.
    """
    if sabotage is not None:
        sabotage()
    ranks, _ = distributed.start()
    built = networks.build(config, ranks)
    whole = batch_of(config, 2, 2 * ranks.rank)
    spoiled = [tensor.clone() for tensor in whole]
    if ranks.rank == ranks.world_size - 1 and kind != "gradient":
        spoiled[0 if kind == "input" else 1][0, 0, 3, 3] = torch.nan if kind == "input" else torch.inf
    samples = types.SimpleNamespace(key=lambda number: f"rank{ranks.rank}-{number}")
    stream = types.SimpleNamespace(
        batch=lambda number: (spoiled if number == 1 else whole)[:2],
        positions=lambda number: range(2),
        samples=lambda positions: positions,
        index=types.SimpleNamespace(samples=samples),
    )
    watch = nonfinite.Watch(built, stream, ranks, Path("checkpoints"))  # type: ignore[arg-type]

    def update(number: int, batch: list[torch.Tensor]) -> torch.Tensor:
        noise = batch[2] if config.model.noise_channels else None
        return step.train_step(built, batch[0], batch[1], noise, config.train, number)[1]

    watch.after(1, update(1, whole))
    watch.now()
    before = everything(built)
    handle = None
    if ranks.rank == ranks.world_size - 1 and kind == "gradient":
        handle = built.generator.down[0].convolution.weight.register_hook(lambda gradient: gradient * torch.nan)
    watch.after(2, update(2, spoiled))
    if handle is not None:
        handle.remove()
    try:
        if not at_once:
            watch.after(3, update(3, whole))
        watch.now()
    except FloatingPointError as error:
        after = everything(built)
        return [name for name in before if not torch.equal(before[name], after[name])], str(error)
    raise AssertionError("nothing was said of the bad step")


def everything(built: networks.Networks) -> dict[str, torch.Tensor]:
    """A copy of all that a step may change, by name."""
    found: dict[str, torch.Tensor] = {}

    def walk(where: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[where] = value.clone()
        else:
            for name, inner in value.items():
                walk(f"{where}/{name}", inner)

    walk("", built.state())
    return found


def in_use(built: networks.Networks) -> list[torch.Tensor]:
    """The tensors themselves of which `everything` gives copies."""
    return list(checkpoint.tensors(built.state()))


def leave(folder: Path) -> None:
    """The training as the launcher's process runs it; ends the process."""
    from p2p_dist.jobs import stage_process

    stage_process.run_stage("train", folder)


def noise_from_the_global_state() -> None:
    """A sabotage: noise is not derived from seed and place."""
    seeding.noise_at = lambda places, seed, shape: torch.randn(len(places), *shape)

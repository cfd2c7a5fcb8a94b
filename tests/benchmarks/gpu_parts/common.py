"""What the parts share: where they run, networks by name, pairs made here, clocks."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # here, once, and not in every measurement's process

try:
    import tyro
except ImportError:
    # The settings only carry its marks, and nothing here reads a command line.
    class _Plain:
        """In place of tyro's marks on a type: the type itself."""

        def __class_getitem__(cls, kind: Any) -> Any:
            return kind

    tyro = types.ModuleType("tyro")
    tyro.conf = types.SimpleNamespace(arg=lambda **_: None, Suppress=_Plain, Positional=_Plain)  # type: ignore[attr-defined]
    sys.modules["tyro"] = tyro

from p2p_dist.common import files
from p2p_dist.data import columns, shard_file
from p2p_dist.data import manifest as manifests
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets, science
from p2p_dist.settings.config import Config, Data
from p2p_dist.train import distributed, networks
from p2p_dist.train.networks import Networks
from p2p_dist.train.step import train_step

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the measurements run: `cuda` at full size, `cpu` in small."""

    kind: str
    scratch: Path
    data: Path | None

    @property
    def small(self) -> bool:
        return self.kind == "cpu"

    @property
    def networks(self) -> tuple[str, ...]:
        """The presets whose networks are tried."""
        return ("plain",) if self.small else ("plain", "thesis")

    @property
    def device(self) -> torch.device:
        return torch.device("cuda:0" if self.kind == "cuda" else "cpu")

    @property
    def ranks(self) -> distributed.Ranks:
        return distributed.Ranks(0, 1, 0, self.device, None)

    def begin(self) -> None:
        """First thing in a measurement's process."""
        if self.kind == "cuda":
            torch.cuda.set_device(self.device)
        else:
            torch.set_num_threads(1)

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.kind == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Measurement:
    """One question to the device.

    measure: yields its rows as they are known. title: of its table; those of one `table` that follow each other share it.
    seconds: after so many it is killed. least: it is not begun with fewer. skipped: why it can't be had here.
    """

    name: str
    measure: Callable[[], Iterator[Row]]
    title: str
    seconds: float
    table: str = ""
    least: float = 0.0
    skipped: str = ""


def config_of(network: str, place: Place, model: dict[str, Any] | None = None, **train: Any) -> Config:
    """A preset's networks and losses, at the size of a test on a CPU."""
    of, tiny = presets.PRESETS[network], presets.PRESETS["tiny"]
    if place.small:
        sizes = {"channels": 8, "max_channels": 32, "depth": 4, "discriminator_channels": 8}
        of = dataclasses.replace(tiny, model=dataclasses.replace(of.model, **sizes), train=of.train)
    changed = {"model": dataclasses.replace(of.model, **(model or {})), "train": dataclasses.replace(of.train, **train)}
    return dataclasses.replace(of, **changed)


def build(config: Config, place: Place) -> Networks:
    """Networks of a training in one process, with the layout and precision that the settings name."""
    return networks.build(config, place.ranks)


def batch_of(config: Config, size: int, device: torch.device, begin: int = 0) -> tuple[Any, Any, Any]:
    """Input, target and noise (or None) of `size` pairs that can be learnt: pair n is the same in any batch, on any device."""
    shape = (config.data.mels, config.data.frames)
    inputs, targets, noises = [], [], []
    for number in range(begin, begin + size):
        random = torch.Generator().manual_seed(number)
        smooth = torch.rand(1, 1, 8, 8, generator=random) * 2 - 1
        target = torch.nn.functional.interpolate(smooth, shape, mode="bilinear").clamp(-1, 1)[0]
        targets.append(target)
        inputs.append((target.flip(-1) + 0.1 * torch.randn(1, *shape, generator=random)).clamp(-1, 1))
        noises.append(torch.randn(config.model.noise_channels, *shape, generator=random))
    noise = torch.stack(noises).to(device) if config.model.noise_channels else None
    return torch.stack(inputs).to(device), torch.stack(targets).to(device), noise


def lay_out(place: Path, config: Config, pairs: int) -> RunDir:
    """A run over a dataset of pairs made here, as preprocessing would leave both."""
    run = RunDir(place / "runs" / "run")
    files.write_json(run.dataset, {"name": "pairs"})
    files.write_text(run.config, presets.to_yaml(config))
    write_pairs(place / "shards" / "pairs", config.data, pairs)
    return run


def write_pairs(folder: Path, data: Data, pairs: int) -> Path:
    """A dataset of random pairs, float16 dB, in shards of at most 512."""
    random = np.random.default_rng(0)
    shape = (data.picture_channels, data.mels, data.frames)
    folder.mkdir(parents=True, exist_ok=True)
    listed, found = [], []
    for number, begin in enumerate(range(0, pairs, 512)):
        made = (_pair(random, shape, begin + one) for one in range(min(512, pairs - begin)))
        shard, rows = shard_file.write(folder / f"train-{number:05d}-made.tar", made)
        listed.append({**shard, "samples": len(rows), "songs": [["made", 0, shard["bytes"], shard["sha256"]]]})
        found += [{**row, "shard": number, "song": 0} for row in rows]
    index = columns.write(folder, "train", {name: np.array([row[name] for row in found]) for name in columns.COLUMNS})
    part = {"songs": [{"name": "made", "key": "made", "seconds": 1.0}], "shards": listed, "audio": [], "index": index}
    manifest = {"schema": manifests.SCHEMA, "order": "feistel", "settings": science.recorded(data), "dtype": "<f2"}
    manifest |= {"shape": list(shape), "left_out": [], "splits": {"train": part}}
    manifests.write(folder, manifest)
    return folder


def _pair(random: np.random.Generator, shape: tuple[int, ...], number: int) -> shard_file.Sample:
    loud = -80 + 60 * random.random((2, *shape), np.float32).astype(np.float16)
    return shard_file.pair("made", loud[0], loud[1], {"window": number, "copy": 0})


def seconds_of(work: Callable[[], Any], place: Place, at_least: float = 0.15, rounds: int = 5) -> list[float]:
    """Seconds of one call, in some rounds: each waits for the device before and after and takes `at_least` so long."""
    place.wait()
    begun = time.perf_counter()
    work()
    place.wait()
    times = max(1, round(at_least / max(time.perf_counter() - begun, 1e-6)))
    found = []
    for _ in range(rounds):
        place.wait()
        begun = time.perf_counter()
        for _ in range(times):
            work()
        place.wait()
        found.append((time.perf_counter() - begun) / times)
    return found


def spread(found: list[float], scale: float = 1.0) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": scale * statistics.median(found), "least": scale * min(found), "most": scale * max(found)}


def vector(module: torch.nn.Module) -> torch.Tensor:
    """All gradients as one vector on the host, float64."""
    return torch.cat([parameter.grad.detach().double().cpu().flatten() for parameter in module.parameters()])


def weights(module: torch.nn.Module) -> torch.Tensor:
    """All weights as one vector on the host, float64."""
    return torch.cat([parameter.detach().double().cpu().flatten() for parameter in module.parameters()])


def apart(found: torch.Tensor, true: torch.Tensor) -> float:
    """Relative error; not a number where either is."""
    return float((found - true).norm() / true.norm())


def arithmetic(tf32: bool) -> None:
    """Whether NVIDIA cards multiply float32 in TF32: torch's default is yes in convolutions, no in matrix products."""
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32


def step_of(built: Networks, config: Config) -> Callable[..., Any]:
    """`train_step`, launched kernel by kernel, with the arguments of `capture.Captured`."""
    return lambda input, target, noise, seed: train_step(built, input, target, noise, config.train, seed)

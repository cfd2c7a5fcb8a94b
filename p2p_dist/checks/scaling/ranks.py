"""Measure one size of a training: all-reduce bandwidth, weak and strong scaling."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import torch

from p2p_dist.common import console, files, records
from p2p_dist.common.records import COUNT, Maybe
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from p2p_dist.train import distributed, speed
from p2p_dist.train.networks import Networks, build
from p2p_dist.train.seeding import Noise, number_from
from p2p_dist.train.step import train_step

WARM_UP = 5
"""Warm-up steps before each measurement: compiling, choosing kernels, filling caches."""

PARTS = 5
"""Measurements of each kind; their spread shows other work on the machine."""


def scaling(run: RunDir, settings: Config) -> int:
    """Measure one size in one process: all-reduce, weak scaling, strong scaling. Rank 0 writes the results.

    Weak and strong measurements alternate, so that other work on the machine affects both. Results of repeated measurements are
    collected: `measured` has the images per second of each, and `images_per_second` is their median.
    """
    ranks, message = distributed.start(run.meeting)
    plan = records.read(run.path / "plan.json", {"share": COUNT, "global_batch": COUNT})
    reduced = distributed.all_reduce_speed(ranks) if ranks.world_size > 1 else None
    index = Index(run.shards, "train")
    networks = build(settings, ranks)
    gradients = sum(parameter.numel() * 4 for parameter in networks.generator.parameters())
    found: dict[str, Any] = {
        "nodes": settings.resources.nodes,
        "processes": ranks.world_size,
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU",
        "precision": networks.precision,
        "flops_per_image": speed.flops_per_image(settings),
        "gradient_bytes": gradients // (2 if settings.train.gradient_precision == "bf16" else 1),
        "all_reduce": None if reduced is None else dataclasses.asdict(reduced),
        "message": message,
    }
    batches = {"weak": plan["share"] * ranks.world_size, "strong": plan["global_batch"]}
    training = {
        way: Training(index, settings, networks, ranks, batch) for way, batch in batches.items() if batch >= ranks.world_size
    }
    for one in training.values():
        one.train(WARM_UP)
        one.waited = one.seconds = 0.0
    steps = settings.train.total_steps(len(index))
    rates: dict[str, list[float]] = {way: [] for way in training}
    for part in range(min(PARTS, steps)):
        share = steps * (part + 1) // min(PARTS, steps) - steps * part // min(PARTS, steps)
        for way, one in training.items():
            rates[way].append(share * one.batch / one.train(share))
    if ranks.rank == 0:
        path = run.path / "scaling.json"
        before = records.read(path, dict.fromkeys(batches, Maybe({"measured": [float]}))) if path.is_file() else {}
        for way in batches:
            found[way] = training[way].numbers(rates[way], before.get(way)) if way in training else None
        files.write_json(path, found)
    distributed.barrier(ranks)
    return console.DONE


class Training:
    """A training as in train/loop.py. waited: seconds in which the device waited for batches, of `seconds` in total."""

    def __init__(self, index: Index, settings: Config, networks: Networks, ranks: distributed.Ranks, batch: int) -> None:
        self.settings, self.networks, self.ranks, self.batch = settings, networks, ranks, batch
        self.stream = Stream(
            index,
            settings.data,
            seed=settings.train.seed,
            global_batch_size=batch,
            rank=ranks.rank,
            world_size=ranks.world_size,
            device=ranks.device,
        )
        shape = (settings.model.noise_channels, settings.data.mels, settings.data.frames)
        self.noises = Noise(self.stream, settings.train.seed, shape)
        self.guide: torch.Tensor | None = None
        self.step, self.waited, self.seconds = 0, 0.0, 0.0
        self.data_wait = speed.DataWait(ranks.device)

    def train(self, steps: int) -> float:
        """Train for some steps; return the seconds from the common start to the end of the last process."""
        settings, ranks, seed = self.settings, self.ranks, self.settings.train.seed
        self._meet()
        begun = time.monotonic()
        for step in range(self.step, self.step + steps):
            with self.data_wait.batch():
                input, target = self.stream.batch(step)
                noise = self.noises.batch(step)
            if self.guide is None and (channels := self.networks.generator.guide_channels):
                # Silence: sketches are not made for this check, and take no time to read beside a step.
                self.guide = torch.zeros(len(input), channels, *input.shape[2:], device=input.device)
            dropout = number_from("dropout", seed, step, ranks.rank)
            train_step(self.networks, input, target, noise, settings.train, dropout, self.stream.weight, self.guide)
            self.data_wait.step_given()
        self._meet()
        self.step += steps
        seconds = time.monotonic() - begun
        self.waited += self.data_wait.take()
        self.seconds += seconds
        return seconds

    def _meet(self) -> None:
        """Wait until the device and all processes have finished their work."""
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        distributed.barrier(self.ranks)

    def numbers(self, rates: list[float], before: dict[str, Any] | None) -> dict[str, Any]:
        """Combine the numbers of this measurement with those of an earlier call."""
        measured = [*(before["measured"] if before else []), *rates]
        return {
            "batch": self.batch,
            "images_per_second": statistics.median(measured),
            "measured": measured,
            "data_wait": self.waited / self.seconds,
        }

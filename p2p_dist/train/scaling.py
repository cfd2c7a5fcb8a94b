"""What is measured at one size of a training: the all-reduce, weak and strong scaling."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from p2p_dist import console, files, records
from p2p_dist.config import Config
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.records import COUNT
from p2p_dist.rundir import RunDir
from p2p_dist.train import distributed, speed
from p2p_dist.train.networks import Networks, build
from p2p_dist.train.randomness import noise_at, number_from
from p2p_dist.train.step import train_step

WARM_UP = 5
"""Steps before those that are measured: compiling, choosing kernels, filling caches."""


def scaling(run: RunDir, settings: Config) -> int:
    """One process of one size: all-reduce, weak scaling, strong scaling. The first writes the numbers down."""
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
    for way, batch in (("weak", plan["share"] * ranks.world_size), ("strong", plan["global_batch"])):
        fits = batch % ranks.world_size == 0
        found[way] = _measure(index, settings, networks, ranks, batch) if fits else None
    if ranks.rank == 0:
        files.write_json(run.path / "scaling.json", found)
    distributed.barrier(ranks)
    return console.DONE


def _measure(index: Index, settings: Config, networks: Networks, ranks: distributed.Ranks, batch: int) -> dict[str, float]:
    """Train some steps with this global batch, as train/loop.py does."""
    seed, steps = settings.train.seed, settings.train.total_steps(len(index))
    stream = Stream(
        index,
        settings.data,
        seed=seed,
        global_batch_size=batch,
        rank=ranks.rank,
        world_size=ranks.world_size,
        device=ranks.device,
    )
    shape = (settings.model.noise_channels, settings.data.mels, settings.data.frames)
    waited = begun = 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            if ranks.device.type == "cuda":
                torch.cuda.synchronize(ranks.device)
            distributed.barrier(ranks)
            begun, waited = time.monotonic(), 0.0
        before = time.monotonic()
        input, target = stream.batch(step)
        noise = noise_at(stream.places(step), seed, shape, ranks.device)
        waited += time.monotonic() - before
        numbers, _ = train_step(networks, input, target, noise, settings, number_from("dropout", seed, step, ranks.rank))
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    distributed.barrier(ranks)
    seconds = time.monotonic() - begun
    assert numbers
    return {"batch": batch, "images_per_second": steps * batch / seconds, "data_wait": waited / seconds}

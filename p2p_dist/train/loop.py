"""The training of one run, top to bottom."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from p2p_dist import console, files, rundir
from p2p_dist.config import Config
from p2p_dist.data.index import Index, copy_to_node
from p2p_dist.data.stream import Stream
from p2p_dist.rundir import RunDir
from p2p_dist.train import checkpoint, distributed
from p2p_dist.train.step import Networks, build, noise_at, number_from, train_step
from p2p_dist.train.stop import StopFlag


def train(run: RunDir, config: Config) -> int:
    """Train from the newest valid checkpoint, or the beginning, to the end or until asked to stop.

    Every process of the training calls it, with its place in RANK and the like.

    Returns:
        exit code: 0 all steps are done, 75 stopped in order with a checkpoint.

    Raises:
        ValueError: settings, data and processes do not fit; the message says how.
        FloatingPointError: a loss or gradient was not finite; the last checkpoint is good.
    """
    stop = StopFlag()
    ranks, message = distributed.start()
    first = ranks.rank == 0
    if message and first:
        console.say(f"note: {message}")

    folder = copy_to_node(run.shards, "train") if config.data.stage == "node" else run.shards
    index = Index(folder, "train")
    stream = Stream(
        index,
        config.data,
        seed=config.train.seed,
        global_batch_size=config.train.global_batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        device=ranks.device,
    )
    total = config.train.total_steps(len(index))

    networks = build(config, ranks)
    if first:
        files.remove_garbage(run.checkpoints)
    distributed.barrier(ranks)
    start = resume(run, networks, ranks, config)
    if first:
        rundir.cut_metrics(run, start)
        per_process = config.train.global_batch_size // ranks.world_size
        console.say(
            f"train: {len(index)} windows, {total} steps from {start}; global batch {config.train.global_batch_size} = "
            f"{ranks.world_size} processes x {per_process}; {ranks.device}, {torch.get_num_threads()} threads each"
        )

    agreement = distributed.Agreement(ranks)
    shape = (config.model.noise_channels, config.data.mels, config.data.frames)
    progress = console.Progress("train", total, start=start, status=run.status if first else None)
    digests: list[str] = []
    waited, since, since_step = 0.0, time.monotonic(), start
    bad = torch.zeros((), device=ranks.device)
    stopping = False
    step = start
    while step < total and not stopping:
        begun = time.monotonic()
        input, target = stream.batch(step)
        noise = noise_at(stream.places(step), config.train.seed, shape, ranks.device)
        waited += time.monotonic() - begun
        if first:
            digests.append(stream.keys_digest(step))

        numbers = train_step(
            networks, input, target, noise, config, number_from("dropout", config.train.seed, step, ranks.rank)
        )
        bad = torch.maximum(bad, numbers["bad"])
        step += 1

        stopping = bool(agreement.propose(int(bool(stop))))
        saving = (
            step == total or stopping or config.train.is_kept(step, len(index)) or step % config.train.checkpoint_every == 0
        )
        if saving or step % config.train.log_every == 0:
            if float(bad):
                keys = ", ".join(index.samples[n].key for n in stream.samples(stream.places(step - 1)))
                raise FloatingPointError(
                    f"a loss or gradient was not finite at or before step {step}; rank {ranks.rank} had the samples {keys}; "
                    f"nothing was saved since the last checkpoint in {run.checkpoints}, which is good"
                )
            now = time.monotonic()
            row: dict[str, Any] = {"step": step, "epoch": step * config.train.global_batch_size / len(index)}
            row |= average_over_ranks({name: value for name, value in numbers.items() if name != "bad"}, ranks)
            row["images_per_second"] = (step - since_step) * config.train.global_batch_size / (now - since)
            row["data_wait"] = waited / (now - since)
            row["digests"] = " ".join(digests)
            if first:
                rundir.append_metrics(run, row)
                progress.update(step, f"l1 {row['l1']:.4f}, {row['images_per_second']:.3g} images/s")
            digests, waited, since, since_step = [], 0.0, now, step
        if saving and first:
            save(run, step, networks, config, ranks)
            checkpoint.prune(run.checkpoints, config.train.keep_last, lambda s: config.train.is_kept(s, len(index)))
    progress.close()
    distributed.barrier(ranks)
    if stopping and step < total:
        if first:
            console.say(f"train: stopped in order at step {step} of {total}, all of it saved")
        return console.STOPPED
    return console.DONE


def resume(run: RunDir, networks: Networks, ranks: distributed.Ranks, config: Config) -> int:
    """Load the newest valid checkpoint on rank 0's word; returns its step, 0 where there is none.

    Only rank 0 looks for it, so that a folder that changes under the ranks can't make them begin at different steps.
    """
    found = checkpoint.load_newest(run.checkpoints) if ranks.rank == 0 else None
    step = torch.tensor([found[0] if found else 0])
    if ranks.gloo is not None:
        dist.broadcast(step, 0, group=ranks.gloo)
    start = int(step)
    if not start:
        return 0
    if found is None:
        path = run.checkpoints / rundir.step_name(start)
        state = torch.load(path / checkpoint.STATE, map_location="cpu", weights_only=True)
    else:
        state = found[1]
    if (digest := rundir.settings_digest(config)) != state["settings"]:
        raise ValueError(
            f"the checkpoint at step {start} in {run.checkpoints} is of other settings ({state['settings']}, now {digest})"
        )
    networks.load(state["networks"])
    for module in (networks.generator, networks.discriminator):
        distributed.equalise(module, ranks)
    return start


def save(run: RunDir, step: int, networks: Networks, config: Config, ranks: distributed.Ranks) -> None:
    """Write a checkpoint; rank 0 only, which has all there is to save."""
    digest = rundir.settings_digest(config)
    about = {"settings": digest, "world_size": ranks.world_size, "threads": torch.get_num_threads(), "torch": torch.__version__}
    state = {"settings": digest, "step": step, "networks": networks.state()}
    checkpoint.save(run.checkpoints, step, state, networks.to_evaluate(), about)


def average_over_ranks(numbers: dict[str, torch.Tensor], ranks: distributed.Ranks) -> dict[str, float]:
    """Means over the global batch of 0-dimensional tensors; reads them from the device."""
    values = torch.stack(list(numbers.values())).float().cpu()
    if ranks.gloo is not None:
        dist.all_reduce(values, group=ranks.gloo)
        values /= ranks.world_size
    return dict(zip(numbers, values.tolist(), strict=True))

"""The training loop of one run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from p2p_dist.common import console, files, linux
from p2p_dist.data.guides import Guides
from p2p_dist.data.index import Index
from p2p_dist.data.staging import place_on_node, training_guides, training_shards
from p2p_dist.data.stream import Stream
from p2p_dist.run import energy, metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science
from p2p_dist.settings.config import Config
from p2p_dist.train import capture, checkpoint, distributed, gpu_counters, profile, speed
from p2p_dist.train.guided import Guided
from p2p_dist.train.hang import Watchdog
from p2p_dist.train.networks import Networks, build, warn_of_emulation
from p2p_dist.train.nonfinite import Watch
from p2p_dist.train.saver import Saver
from p2p_dist.train.seeding import Noise, number_from
from p2p_dist.train.stop import RequestError, StopFlag
from p2p_dist.train.tensorboard_log import Board
from p2p_dist.train.tracker import Follower

EARLY = 20
"""The step of the first save if the interval is longer, so that a run whose node fails early can resume, and a folder that is
not writable is reported early. It is constant, so that a resumed run writes the same lines to metrics.jsonl."""


def train(run: RunDir, config: Config, stop: StopFlag | None = None) -> int:
    """Train from the newest valid checkpoint, or from the beginning, until the last step or a request to stop.

    Every process of the training calls this function. RANK etc. are set in its environment.

    Args:
        stop: the flag for requests to stop, if the caller has one already.

    Returns:
        the exit code: 0 if all steps are done, 75 if stopped on request, with a checkpoint saved.

    Raises:
        ValueError: settings, data and number of processes do not fit together; the message says why.
        FloatingPointError: a loss or gradient was not finite; the last checkpoint is good.
        OSError: shards can't be read, or checkpoints can't be written.
    """
    stop = StopFlag() if stop is None else stop
    ranks, message = distributed.start(run.meeting)
    first = ranks.rank == 0
    if message and first:
        console.say(f"note: {message}")

    folders = bring(run, config, stop)
    distributed.wait_for_all(ranks)  # one node may have its copy already, and another fetch for an hour
    if distributed.is_any(ranks, folders is None):
        if first:
            console.say("train: stopped cleanly while the training data were brought to the node; what has arrived is kept")
        return console.STOPPED
    assert folders is not None
    index = Index(folders[0], "train")
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

    if first:
        files.remove_garbage(run.checkpoints)
        for ours in (run.metrics, run.status, run.outcome, run.meeting):
            files.remove_garbage(run.path, ours.name)
    guides = Guides(folders[1]) if config.model.sketch else None
    start, state = find_start(run, ranks, config, index, guides)
    networks = build(config, ranks, state["precision"] if state else None)
    if state:
        try:
            networks.load(state["networks"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            where = run.checkpoints / rundir.step_name(start)
            raise ValueError(
                f"{where} contains the state of a different network ({error}): move it away to continue without it"
            ) from error
        for module in (networks.generator, networks.discriminator):
            distributed.equalise(module, ranks)
    del state  # frees memory: networks and optimisers have their own copy
    if first:
        metrics_file.cut(run, start)
        parts = shares(config.train.global_batch_size, ranks.world_size)
        if config.train.micro_batch_size:
            parts += f", {config.train.micro_batch_size} at once"
        console.say(
            f"train: {len(index)} windows, {total} steps from {start}; global batch {config.train.global_batch_size} = "
            f"{parts}; {networks.precision} on {ranks.device}, {torch.get_num_threads()} threads each"
        )
        if warning := warn_of_emulation(networks.precision, ranks.device.type, linux.cpuinfo()):
            console.complain(warning)

    if ranks.device.type == "cuda" and torch.version.hip is None:
        # cuDNN measures its algorithms in the first step and keeps the fastest. The choice may differ between starts.
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    update = capture.step_of(networks, config.train, ranks, stream.weight)
    agreement = distributed.Agreement(ranks)
    watch = Watch(networks, stream, ranks, run.checkpoints)
    metrics = metrics_file.Writer(run)
    saver = Saver(run.checkpoints, config.train.keep_last, lambda s: config.train.is_kept(s, len(index)), metrics.write)
    watchdog = Watchdog(ranks, start, config.train.hang_after)
    meter = speed.Speed(config, networks.precision, ranks.device, ranks.world_size, start)
    counters = gpu_counters.beside(ranks.device)
    progress = console.Progress("train", total, start=start, every=0, status=run.status if first else None)
    guided = Guided(guides, stream, config) if guides is not None else None
    board = None
    if first and config.train.tensorboard:
        board = Board(run.path / "tensorboard", start, stream, config.model.noise_channels, config.train.seed, guided)
    follower = Follower(run, config.train.tracker) if first and config.train.tracker != "none" else None
    profiled = profile.Profile(run.path / "profile", config.train.profile, ranks) if config.train.profile else None
    noises = Noise(stream, config.train.seed, (config.model.noise_channels, config.data.mels, config.data.frames))
    digests: list[str] = []
    stopping = False
    step = start
    with watchdog, saver:
        while step < total and not stopping:
            if profiled is not None:
                profiled.before(step + 1)
            with profile.labelled("data wait"), meter.data_wait.batch():
                input, target = stream.batch(step)
                noise = noises.batch(step)
                guide = guided.batch(step) if guided is not None else None
            if first:
                digests.append(stream.keys_digest(step))

            dropout_seed = number_from("dropout", config.train.seed, step, ranks.rank)
            numbers, flags = update(input, target, noise, dropout_seed, guide)
            meter.data_wait.step_given()
            step += 1
            watch.after(step, flags)
            watchdog.after(step)

            stopping = bool(agreement.propose(int(bool(stop))))
            is_kept = config.train.is_kept(step, len(index))
            saving = step == total or stopping or is_kept or step % config.train.checkpoint_every == 0
            saving |= step == EARLY < config.train.checkpoint_every
            if saving or step % config.train.log_every == 0:
                watch.now()
                row: dict[str, Any] = {"step": step, "epoch": step * config.train.global_batch_size / len(index)}
                row |= average_over_ranks(numbers, ranks, stream.weight)
                if counters is not None:
                    row |= gpu_counters.numbers(counters, ranks)
                if first:
                    rundir.check_still_ours()
                    row |= meter.numbers(step)
                    row["digests"] = " ".join(digests)
                    digests = []
                    metrics.append(row)
                    if saving and "gpu_joules" in row:
                        energy.note(run, step, row["gpu_joules"])
                    if follower is not None:
                        follower.log(row)
                    progress.update(step, speed.in_words(row))
                    if run.was_cancelled():  # for example while it was suspended, when no signal arrives
                        stop.requested_by = "the cancel command"
                if board is not None:
                    board.numbers(row)
            if profiled is not None:
                profiled.after(step, is_end=stopping or step == total)
            if saving and first:
                save(saver, step, networks, science.recorded(config), ranks, index, guides)
                stop.allow(saver.seconds)
                if board is not None:
                    board.pictures(step, networks)
        saver.finish()
        distributed.barrier(ranks)
    progress.close()
    if board is not None:
        board.close()
    if follower is not None:
        follower.close()
    if stopping and step < total:
        if first:
            console.say(f"train: stopped cleanly at step {step} of {total}; all steps are saved")
        return console.STOPPED
    return console.DONE


def bring(run: RunDir, config: Config, stop: StopFlag) -> tuple[Path, Path] | None:
    """Bring the training data to the node if they are to be read there, which may take long; None if a request stops it.

    Returns:
        the folders of the shards and of the guides.
    """
    try:
        with stop.at_once() if place_on_node(config.data) else contextlib.nullcontext():
            return training_shards(run, config.data), training_guides(run, config.data) if config.model.sketch else run.guides
    except RequestError:
        return None


_STATE = ("settings", "windows", "step", "precision", "networks")


def find_start(
    run: RunDir, ranks: distributed.Ranks, config: Config, index: Index, guides: Guides | None
) -> tuple[int, dict[str, Any] | None]:
    """Load step and state of the newest valid checkpoint, chosen by rank 0; 0 and None if there is none.

    Only rank 0 reads the folder. Otherwise ranks could start at different steps if the folder changes meanwhile.
    """
    found = checkpoint.load_newest(run.checkpoints, _STATE) if ranks.rank == 0 else None
    broadcast = torch.tensor([found[0] if found else 0])
    if ranks.gloo is not None:
        dist.broadcast(broadcast, 0, group=ranks.gloo)
    start = int(broadcast)
    if not start:
        return 0, None
    if found is not None:
        state = found[1]
    else:
        path = run.checkpoints / rundir.step_name(start)
        state = torch.load(path / checkpoint.STATE, map_location="cpu", weights_only=True)
    if changed := science.are_those(state["settings"], config):
        raise ValueError(
            f"the checkpoint at step {start} in {run.checkpoints} was made with other settings ({', '.join(changed)})"
        )
    if state["windows"] != index.samples.digest:
        raise ValueError(
            f"the checkpoint at step {start} in {run.checkpoints} was trained on other windows than {run.shards} has now, so "
            "the next batches would differ; start a new run with --run NAME"
        )
    if guides is not None and state.get("guides", guides.digest) != guides.digest:
        raise ValueError(
            f"the checkpoint at step {start} in {run.checkpoints} was trained with other sketches than {guides.folder} has "
            "now: restore that folder, or start a new run with --run NAME"
        )
    return start, state


def save(
    saver: Saver,
    step: int,
    networks: Networks,
    settings: dict[str, Any],
    ranks: distributed.Ranks,
    index: Index,
    guides: Guides | None,
) -> None:
    """Start writing a checkpoint. Only rank 0 writes; it has the whole state."""
    about = {
        "settings": settings,
        "world_size": ranks.world_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    state = {"settings": settings, "windows": index.samples.digest, "step": step, "precision": networks.precision}
    if guides is not None:
        state["guides"] = guides.digest
    state["networks"] = networks.state()
    saver.save(step, state, networks.to_evaluate(), about)


def shares(global_batch_size: int, world_size: int) -> str:
    """Describe how many pairs of a global batch each process has.

    >>> shares(64, 8), shares(64, 24)
    ('8 processes x 8', '16 processes x 3 and 8 x 2')
    """
    share, rest = divmod(global_batch_size, world_size)
    if not rest:
        return f"{world_size} processes x {share}"
    return f"{rest} processes x {share + 1} and {world_size - rest} x {share}"


def average_over_ranks(numbers: dict[str, torch.Tensor], ranks: distributed.Ranks, weight: float = 1.0) -> dict[str, float]:
    """Average 0-dimensional tensors over all ranks, each with its weight (see `train_step`). Waits for the device."""
    values = torch.stack(list(numbers.values())).float().cpu() * weight
    if ranks.gloo is not None:
        dist.all_reduce(values, group=ranks.gloo)
        values /= ranks.world_size
    return dict(zip(numbers, values.tolist(), strict=True))

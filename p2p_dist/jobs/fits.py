"""Check that a run fits the machine or cluster before a process is started or a job is queued: see `check`."""

from __future__ import annotations

import math
from pathlib import Path

from p2p_dist.audio import layouts
from p2p_dist.common import console, files, linux
from p2p_dist.data import transfer
from p2p_dist.jobs import estimate, site, stages
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config, Data, Resources, Train, parse_task
from p2p_dist.settings.resources import sizes_in_words

GB = 1_000_000_000

LEAST_PICTURE = 24
"""Fewest mel bins or frames to train with: the discriminator halves them three times and takes off two."""


def check_pictures(settings: Config) -> None:
    """Check that the networks can be trained with pictures of this size.

    Raises:
        ValueError: they are too small for the discriminator, or for the norm of the generator's deepest level.
    """
    data, model = settings.data, settings.model
    for name in ("mels", "frames"):
        if getattr(data, name) < LEAST_PICTURE:
            raise ValueError(f"data.{name} {getattr(data, name)}: the discriminator needs at least {LEAST_PICTURE}")
    channels = min(model.channels * 2 ** (model.depth - 1), model.max_channels)
    if model.norm == "group" and data.mels == data.frames == 2**model.depth and math.gcd(8, channels) == channels:
        raise ValueError(
            f"model.depth {model.depth} leaves one bin of {channels} channels at the deepest level, which group norm can't "
            "normalise: give a smaller model.depth, or more channels"
        )


def check(run: RunDir, settings: Config, place: site.Site, where: str, dataset: str | None) -> list[str]:
    """Check that a run fits the songs, processes, memory and disk. Writes nothing.

    Args:
        dataset: name of its shards; None for the example song if it is not copied yet.

    Returns:
        notes: settings that are valid but probably unintended.

    Raises:
        ValueError: it could not finish. The message says what to change, and to what.
        OSError: the folder of runs or shards can't be written to; or no dataset in the folder of data.shards.
    """
    check_pictures(settings)
    check_songs(settings.data, settings.evaluate.split, asked=settings.resources.evaluate != "never")
    if settings.model.sketch:
        check_sketched_songs(settings.data, settings.train)
    shards = run.path.parent.parent / "shards" / dataset if dataset else None
    files.check_can_be_written(run.config)
    if shards is None or not (shards / "manifest.json").is_file():
        files.check_can_be_written(run.path.parent.parent / "shards" / "new")
    if run.config.is_file() and stages.is_done("train", run) is not None:
        return []  # the remaining stages need one process and little space
    if settings.data.shards is not None and (shards is None or not (shards / "manifest.json").is_file()):
        transfer.check_folder(settings.data.shards)
    check_batch(settings.resources, settings.train.global_batch_size, place, begun=run.config.is_file())
    per_node = place.processes_per_node(settings.resources)
    if where == "local":
        check_this_machine(settings, settings.resources.nodes * per_node)
    else:
        check_node(settings, place, per_node)
    counts = windows(settings.data, shards)
    check_disk(run, to_write(run, settings, shards, counts))
    found = notes(settings.train.global_batch_size, counts)
    drums = parse_task(settings.data.task)[1] == ("drums",)
    if settings.preset == "default" and drums and not settings.model.sketch and not run.config.is_file():
        found.append(
            "there is no sketch of drums with --data.shards, --data.copies or --data.representation thesis: the preset default "
            "then trains as --preset plain does"
        )
    return found


def check_songs(data: Data, wanted: str, *, asked: bool) -> None:
    """Check that there are songs to train on, and held-out songs to evaluate on.

    Args:
        wanted: the split to evaluate. asked: whether an evaluation is requested.

    Raises:
        ValueError: there are none; says where to put some, and how to go without.
    """
    root = Path(data.root) if data.root else None
    if root is None or not root.is_dir():
        return  # the example song, which is copied later
    splits = check_training_songs(root, data.split_by_title)
    held_out = splits | ({"valid"} if songs_for_validation(root, data.split_by_title) else set())
    if not asked or wanted in held_out:
        return
    others = ", evaluate on the validation songs with --evaluate.split valid" if "valid" in held_out else ""
    raise ValueError(
        f"{root} has no {wanted} songs, so nothing could be evaluated: put songs that are not for training into "
        f"{root / wanted}{others}, or only train with --evaluate never; songs that you add later are evaluated by the same "
        "command with --evaluate after"
    )


def check_training_songs(root: Path, split_by_title: bool) -> set[str]:
    """Check that a folder has songs to train on; return its splits.

    Raises:
        ValueError: there is no such folder, or no song in it; see `layouts.list_songs`.
    """
    splits = {song.split for song in layouts.list_songs(root, split_by_title)}
    if "train" not in splits:
        raise ValueError(f"{root} has no training songs: put songs into {root / 'train'}")
    return splits


def songs_to_train_on(data: Data) -> list[layouts.Source]:
    """List the training songs; none for a finished dataset, or the example song that is copied later."""
    root = Path(data.root) if data.root else None
    if root is None or not root.is_dir():
        return []
    return [song for song in layouts.list_songs(root, data.split_by_title) if song.split == "train"]


def check_sketched_songs(data: Data, train: Train) -> None:
    """Check that all training songs have audio, which sketches are made of, and that kits can be cut of some.

    Raises:
        ValueError: one has spectrograms alone, or the kit of none may be played. The message names it, or some.
    """
    songs = songs_to_train_on(data)
    for song in songs:
        if song.pairs:
            raise ValueError(
                f"{song.path} holds spectrograms without audio, and model.sketch needs audio: remove it, or "
                "train on spectrograms alone with --preset thesis"
            )
    if songs and not any(train.gives_kit(song.name) for song in songs):
        names = ", ".join(console.one_line(song.name) for song in songs[:3]) + ", ..." * (len(songs) > 3)
        raise ValueError(f"no training song in {data.root} has a name like --train.kits {train.kits!r}: there are {names}")


def songs_for_validation(root: Path, split_by_title: bool) -> bool:
    """Whether some songs are for validation."""
    try:
        return any(song.split == "valid" for song in layouts.find_songs(root, split_by_title))
    except (ValueError, ImportError):  # musdb, which knows MUSDB18's, need not be on a login node
        return False


def check_batch(resources: Resources, batch: int, place: site.Site, *, begun: bool) -> None:
    """Check that a global batch has a pair for each process.

    Raises:
        ValueError: it has not; names numbers of nodes, of processes on a node, or batches that work.
    """
    per_node = place.processes_per_node(resources)
    size = resources.nodes * per_node
    if size <= batch:
        return
    sizes = sorted({min(nodes, batch // per_node) for nodes in resources.sizes})
    ways = [f"--nodes {sizes_in_words(tuple(sizes))}" if sizes[-1] else f"--nodes 1 --processes-per-node {batch}"]
    if not begun:  # it is fixed for an existing run
        ways.append(f"--train.global-batch-size {size}")
    raise ValueError(
        f"{size} processes ({_nodes(resources.nodes)} of {per_node}) are more than the {batch} pairs of a global batch: "
        f"use {', or '.join(ways)}"
    )


def _nodes(number: int) -> str:
    return f"{number} node{'s' if number > 1 else ''}"


def check_this_machine(settings: Config, size: int) -> None:
    """Check that this machine has enough cores and memory for all processes of the run.

    Raises:
        ValueError: it has not; names a number of processes that fits.
    """
    cores = linux.usable_cores()
    batch = settings.train.global_batch_size
    if size > max(cores, 4):  # up to 4 are allowed on any machine, to try out several processes
        fitting = min(batch, max(cores, 4))
        raise ValueError(
            f"{size} processes on this machine, which has {_cores(cores)}: more processes than cores are slower; use "
            f"--nodes {fitting}" + _with_one_per_node(settings.resources)
        )
    if has_gpu():
        return  # with a GPU, host memory is not the limit, and only torch knows the memory of the GPU
    needed, free = estimate.memory_of_node(settings, size, size, forked=True), estimate.free_memory()
    if needed <= free:
        return
    fitting = next(
        (n for n in range(size - 1, 0, -1) if estimate.memory_of_node(settings, n, n, forked=True) <= free),
        0,
    )
    smaller = f"--nodes {fitting}{_with_one_per_node(settings.resources)}" if fitting else ""
    cure = ", or ".join(way for way in (smaller, _micro_batch(settings, size, free)) if way)
    raise ValueError(
        f"{size} process{'es' if size > 1 else ''} will take about {needed / GB:.1f} GB of memory, but only {free / GB:.1f} GB "
        "are free: "
        + (f"use {cure}" if cure else "even one process is too large for this machine: use --preset small, or smaller")
    )


def _cores(number: int) -> str:
    return f"{number} core{'s' if number > 1 else ''}"


def _with_one_per_node(resources: Resources) -> str:
    return " --processes-per-node 1" if resources.processes_per_node not in (None, 1) else ""


def _micro_batch(settings: Config, size: int, free: int) -> str:
    """Return advice for a train.micro-batch-size that fits into free memory; an empty text if none does."""
    share = math.ceil(settings.train.global_batch_size / size)
    at_once = min(share, settings.train.micro_batch_size or share)
    while at_once > 1:
        at_once //= 2
        smaller = estimate.with_micro_batch(settings, at_once)
        if estimate.memory_of_node(smaller, size, size, forked=True) <= free:
            return f"--train.micro-batch-size {at_once}"
    return ""


def has_gpu() -> bool:
    """Whether this machine has a GPU, according to its device files."""
    return Path("/dev/kfd").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def check_node(settings: Config, place: site.Site, per_node: int) -> None:
    """Check, with the site's file, that a node of the cluster has the cores and memory for its processes.

    Raises:
        ValueError: it has not; names the number that fits.
    """
    if place.cores_per_node is not None and per_node * place.cores_per_process > place.cores_per_node:
        fitting = place.cores_per_node // place.cores_per_process
        raise ValueError(
            f"{per_node} processes of {_cores(place.cores_per_process)} each do not fit on a node of "
            f"{_cores(place.cores_per_node)}: use --processes-per-node "
            f"{max(1, min(settings.train.global_batch_size, fitting))}"
            + ("" if fitting else ", and fewer cores_per_process in the site's file")
        )
    whole = place.takes_whole_nodes("train", settings.resources)
    if whole and place.cpu_masks is not None and per_node > len(place.cpu_masks):
        raise ValueError(
            f"{per_node} processes on a node, but the site's file has cpu_masks for {len(place.cpu_masks)}: "
            f"use --processes-per-node {min(settings.train.global_batch_size, len(place.cpu_masks))}"
        )
    if place.gpus_per_node or place.memory_per_node is None:
        return
    # On the fewest nodes, a process has the most pairs.
    size, most = settings.resources.sizes[0] * per_node, site.bytes_of(place.memory_per_node)
    needed = estimate.memory_of_node(settings, size, per_node, forked=False)
    if needed > most:
        raise ValueError(
            f"{per_node} processes on a node will take about {needed / GB:.1f} GB of memory, but the site's memory_per_node is "
            f"{place.memory_per_node}: use fewer --processes-per-node on more --nodes, or a smaller --train.micro-batch-size"
        )


def windows(data: Data, shards: Path | None) -> dict[str, int | None]:
    """Map split -> number of windows, from the manifest or the lengths of the songs; None if unknown."""
    if shards is not None and (found := stages.windows(shards)):
        return dict(found)
    root = Path(data.root) if data.root else None
    return estimate.windows(data, root) if root is not None and root.is_dir() else {}


def to_write(run: RunDir, settings: Config, shards: Path | None, counts: dict[str, int | None]) -> dict[str, int]:
    """Estimate the bytes that the run will still write: shards, checkpoints and, for a model with a sketch, sketches."""
    made = shards is not None and (shards / "manifest.json").is_file()
    kept, whole = estimate.checkpoint_bytes(settings, counts.get("train"))
    begun = bool(rundir.find_steps(run.checkpoints))  # it has written part of it already
    needed = {
        "shards": 0 if made else estimate.shard_bytes(settings.data, counts),
        "checkpoints": 0 if begun else kept + whole,
    }
    if settings.model.sketch and not run.drummer.is_file():
        needed["sketches"] = estimate.pattern_bytes(settings, counts.get("train") or 0, len(songs_to_train_on(settings.data)))
    return needed


def space(run: RunDir, needed: dict[str, int]) -> str:
    """Describe what will be written, and where: "about 2.9 GB will be written below DIR (shards 60 MB, checkpoints 2.8 GB)"."""
    parts = ", ".join(f"{name} {console.size(number)}" for name, number in needed.items())
    return f"about {console.size(sum(needed.values()))} will be written below {run.path.parent.parent} ({parts})"


def check_disk(run: RunDir, needed: dict[str, int]) -> None:
    """Check that there is disk space for what `to_write` estimates.

    Raises:
        ValueError: there is not. The message says how much is missing, and what would need less.
    """
    free = estimate.free_disk(run.path)
    if sum(needed.values()) > free:
        raise ValueError(
            f"{space(run, needed)}, and {console.size(free)} are free there: free some space, "
            "name another folder with $P2P_RUNS, or keep fewer generators (a larger --train.keep-every) or checkpoints "
            "(a smaller --train.keep-last)"
        )


def notes(batch: int, counts: dict[str, int | None]) -> list[str]:
    """Return notes about a run that fits. batch: its global batch size."""
    trained = counts.get("train")
    if not trained or trained >= batch:
        return []
    return [
        f"the songs give about {trained} training windows, fewer than the global batch of {batch}, so each step "
        f"uses some windows more than once: use --train.global-batch-size {2 ** int(math.log2(trained))}, or more songs"
    ]

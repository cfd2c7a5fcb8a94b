"""Create a run or continue one. A continued run keeps its settings, and must have the songs that it was trained on."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

from p2p_dist.audio import layouts
from p2p_dist.common import console, files, records, schemas
from p2p_dist.data import dataset as datasets
from p2p_dist.data import manifest
from p2p_dist.run import provenance, snapshot
from p2p_dist.run.rundir import RunDir, check_own, find_steps
from p2p_dist.settings import config, presets, science


def check_begin(run: RunDir, wanted: config.Config, dataset: str | None) -> config.Config:
    """Return the settings with which a run would continue: saved science settings, current resources. Writes nothing.

    Args:
        dataset: name of the shards; None: not known yet.

    Raises:
        ValueError: a science setting or the songs differ from those that the run began with; names each.
    """
    check_own(run)
    if not run.config.is_file():
        return wanted
    saved = presets.from_saved(run.config)
    wanted = presets.with_earlier(saved, wanted)
    if changed := science.differences(science.recorded(saved), wanted):
        raise ValueError(
            f"the run {run.name} was started with other settings:\n  "
            + "\n  ".join(changed)
            + "\nthe settings of a run cannot change; start a new run with --run NAME"
        )
    begun_with = run.read_dataset() if run.dataset.is_file() else None
    # Without this record, training compares the windows. Songs may change until there is a checkpoint.
    changed_songs = None not in (begun_with, dataset) and begun_with != dataset
    if changed_songs and find_steps(run.checkpoints) and not _has_same_training(run, wanted.data):
        raise ValueError(
            f"the training songs differ from those that the run {run.name} was trained on ({begun_with}, now {dataset}): "
            "restore them, or start a new run with --run NAME. Songs of test/ may be added or removed; so may those of valid/, "
            "unless training songs were held out in their place"
        )
    return presets.with_resources(saved, wanted)


def begin(run: RunDir, wanted: config.Config, dataset: str) -> config.Config:
    """Create the run or check that it is the same; return the settings to run with: see `check_begin`.

    Raises:
        ValueError: a science setting or the songs differ from those that the run began with; names each.
    """
    settings = check_begin(run, wanted, dataset)
    run.path.mkdir(parents=True, exist_ok=True)
    if files.not_only_ours(run.path) is not None:
        run.path.chmod(run.path.stat().st_mode & 0o7755)
        console.say(f"note: other users had write permission for {run.path}; it was removed")
    if not run.config.is_file():
        records.write(run.provenance, schemas.PROVENANCE, provenance.gather())
    _note_dataset(run, dataset, wanted.data)
    _note_overlap(run, settings.evaluate.allow_overlap)
    if not run.code.is_dir():
        snapshot.copy_code(run.code)
    elif snapshot.has_record(run.code):
        snapshot.close(run.code)
    else:
        snapshot.record(run.code)
        console.say(
            f"note: {run.code} was copied by an earlier version, which recorded no checksums. Only you can write to it, so the "
            f"checksums of its files are now recorded in {snapshot.SUMS} there"
        )
    # The run's copy of the code reads the settings. If it is an earlier version, it does not accept newer settings.
    like = run.config if run.config.is_file() and snapshot.differs(run.code) else None
    if like is not None and (left_out := presets.unknown(settings, like)):
        console.say(f"note: the copy of the code in {run.name} does not know {', '.join(left_out)}: omitted from its settings")
    files.write_text(run.config, presets.to_yaml(settings, like))
    return settings


def _has_same_training(run: RunDir, data: config.Data) -> bool:
    """Whether the current training songs are those that the run was trained with."""
    if data.root is None:
        return False
    root, known = Path(data.root), run.dataset_record()["training"]  # None: the run is older than that
    if known is not None:
        return datasets.training_digest(root, data, run.dataset_record()["schema"]) == known
    # For an older run only the name is known, which is a digest of all songs: ignore songs that were added since.
    try:
        content = manifest.read(run.shards)
    except (FileNotFoundError, ValueError):
        return False
    there = {(split, song["name"]) for split, part in content["splits"].items() for song in part["songs"]}
    there |= {("test", song["song"]) for song in content["left_out"]}
    of = layouts.list_songs(root, data.split_by_title)
    found = [song for song in of if song.split == "train" or (song.split, song.name) in there]
    return (
        datasets.holds_some_back(found) == datasets.holds_some_back(of)
        and datasets.name_of_version_0_1(root, data, found) == run.read_dataset()
    )


def _note_dataset(run: RunDir, dataset: str, data: config.Data) -> None:
    """Record the run's shards and the digest of its training songs.

    If the held-out songs changed after the training has started, its evaluations are renamed, and all checkpoints are
    evaluated again.
    """
    note: dict[str, str | None] = {"name": dataset}
    if data.root is not None and Path(data.root).is_dir():
        with contextlib.suppress(ValueError):  # no songs: a later check reports it
            note["training"] = datasets.training_digest(Path(data.root), data)
    if run.dataset.is_file():
        before = run.read_dataset()
        if before == dataset and run.dataset_record()["training"] is not None:
            return
        trained_on = run.shards_before
        if before != dataset and find_steps(run.checkpoints):
            if trained_on is None or (run.shards / manifest.NAME).is_file():
                trained_on = run.shards
            _keep_aside(run, before, "songs held out from training changed")
        if trained_on is not None and trained_on.name != dataset and find_steps(run.checkpoints):
            note["trained_on"] = trained_on.name
        if before == dataset and find_steps(run.checkpoints):
            note["manifest"] = run.dataset_record()["manifest"]
    records.write(run.dataset, schemas.DATASET, note)


def _note_overlap(run: RunDir, allowed: bool) -> None:
    """Rename the evaluations if --allow-overlap changes which songs of the dataset are measured."""
    if not run.config.is_file() or not (run.shards / manifest.NAME).is_file():
        return
    before = presets.from_saved(run.config).evaluate.allow_overlap
    if before != allowed and any(manifest.overlap(manifest.read(run.shards), split) for split in ("test", "valid")):
        _keep_aside(run, "with-overlap" if before else "without-overlap", "--allow-overlap changed")


def _keep_aside(run: RunDir, name: str, why: str) -> None:
    """Rename the evaluations to evaluations-NAME, so that all checkpoints are evaluated again on the same songs."""
    if find_steps(run.evaluations):
        names = (f"evaluations-{name}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
        aside = next(path for path in map(run.path.joinpath, names) if not path.exists())
        run.evaluations.rename(aside)
        console.say(f"{why}: the evaluations so far are kept in {aside}")

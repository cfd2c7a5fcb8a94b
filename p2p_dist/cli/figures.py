"""Tables for `evaluate`: the figures of a run's checkpoints, which are evaluated first if needed."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

from p2p_dist.audio import layouts
from p2p_dist.common import console, files
from p2p_dist.data import dataset as datasets
from p2p_dist.data import manifest, overlap
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.song_record import read_record
from p2p_dist.evaluate import checkpoints, claims, held_out_songs, ranking
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures.kinds import Row
from p2p_dist.evaluate.measures.table import MEASURES, columns, is_pitched, label, why_absent
from p2p_dist.evaluate.report import page
from p2p_dist.run import rundir
from p2p_dist.run.lock import Owner


def table(rows: dict[str, Row], *, pitched: bool, certain: bool = True) -> str:
    """Format figures as Markdown: a table of ranking measures and one of other measures, without empty columns.

    Args:
        certain: whether distances are.
    """
    texts = []
    for measures in columns(pitched=pitched):
        names = [name for name in measures if any(row.get(name) is not None for row in rows.values())]
        if names:
            lines = ["| | " + " | ".join(MEASURES[name].label for name in names) + " |", "| --- " * (len(names) + 1) + "|"]
            for label, row in rows.items():
                values = [
                    "–" if (value := row.get(name)) is None else MEASURES[name].text(value, certain=certain) for name in names
                ]
                lines.append(f"| {label} | " + " | ".join(values) + " |")
            texts.append("\n".join(lines))
    return "\n\n".join(texts)


def of_run(run: rundir.RunDir, asked: tuple[int | str, ...], songs: Path | None) -> tuple[dict[str, Any], bool]:
    """Evaluate checkpoints of a run; return the figures, and whether their stem is pitched.

    Args:
        asked: steps, or `best`; empty: all that have no evaluation yet. songs: folder of songs; None for the run's own.

    Raises:
        ValueError: there is no such run, checkpoint or song.
    """
    settings = rundir.read_settings(run)
    only = steps_of(run, asked)
    claims.find_checkpoints(run, only)  # raises an error before anything is written
    if songs is None:
        out = run.evaluations
        with closing(rundir.lock_run(run)):  # the launcher also evaluates
            checkpoints.evaluate(run, settings, only)
            page.write(run, settings)
    else:
        root = files.expanded(songs).absolute()
        data = dataclasses.replace(settings.data, root=str(root), split_by_title=not layouts.is_split(root))
        before = datasets.name_of_version_0_1(root, data, layouts.list_songs(root, data.split_by_title))
        name = before if (run.path / "measured" / before).is_dir() else datasets.dataset_name(root, data)
        out = run.path / "measured" / name
        held_out = held_out_songs.from_folder(root, settings.data.task, settings.evaluate.split, settings.evaluate.songs)
        what = f"the run {run.name} is being measured on the songs in {root}"
        with closing(Owner(out, what, f"its figures are written to {out}")):
            checkpoints.evaluate(run, settings, only, held_out, out)
    read = ranking.read_evaluations(out)
    assert read is not None
    found = _summary(run, settings.evaluate.split, out, *read, only)
    if songs is not None and (same := _trained_on(run, held_out)):
        titles = ", ".join(map(console.one_line, same))
        found["said"].append(f"note: the run was trained on these songs, so the figures do not apply to other songs: {titles}")
    return found, is_pitched(settings.data.task)


def _trained_on(run: rundir.RunDir, songs: list[held_out_songs.HeldOut]) -> list[str]:
    """Return the titles of those songs that the run was trained on, by their audio; by title where no audio is known."""
    part = manifest.read(run.shards)["splits"].get("train", {"songs": []})
    trained = [one for path in sorted((run.shards / PARTS).glob("train-*.json")) if (one := read_record(path)) is not None]
    by_title = {song["name"] for song in part["songs"]} - {one["song"] for one in trained if one["fingerprint"] is not None}
    measured = []
    for song in songs:
        input, target, rate = song.read()
        heard = overlap.fingerprint([input, target], rate)
        measured.append({"split": song.split, "key": song.key, "song": song.name, "fingerprint": heard})
    same = overlap.training_songs([*trained, *measured])
    return sorted(song.name for song in songs if (song.split, song.key) in same or song.name in by_title)


def steps_of(run: rundir.RunDir, asked: tuple[int | str, ...]) -> tuple[int, ...]:
    """Return the requested steps; `best` is the best checkpoint of the run.

    Raises:
        ValueError: the run has no best checkpoint yet.
    """
    best = run.read_best() if "best" in asked else None
    if "best" in asked and best is None:
        raise ValueError(f"the run {run.name} has no best checkpoint yet: evaluate it first, without --checkpoints")
    return tuple(dict.fromkeys(best["step"] if best is not None and step == "best" else int(step) for step in asked))


def _summary(
    run: rundir.RunDir, split: str, out: Path, evaluated: dict[int, Any], baselines: Any, only: tuple[int, ...]
) -> dict[str, Any]:
    steps = {step: content["splits"][split] for step, content in evaluated.items() if not only or step in only}
    known = baselines["splits"][split]
    rows = {name: known["rows"][name]["mean"] for name in BASELINES if name in known["rows"]}
    rows |= {f"step {step}": one["mean"] for step, one in steps.items()}
    absent = dict(known["missing"])
    for one in steps.values():
        later = {name: why_absent(name, one["mean"], {}) for name in MEASURES if name not in one["mean"]}
        absent |= {label(name): why for name, why in (one["absent"] | later).items()}
    said = [f"\nfigures: {out}"]
    if out == run.evaluations and (best := run.read_best()) is not None:
        said.append(f"best checkpoint: {rundir.in_words(best)}")
    return {"songs": {}, "mean": rows, "absent": absent, "said": said, "distance": known.get("distance")}

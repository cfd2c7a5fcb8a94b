"""Make and measure the baselines of a run once for each held-out song, and average them.

references/KEY.json       measures of one song's baselines, descriptors of its true stem, and the gain of its audio files
references/audio/         for each reported song: input, true stem, true mix and ceiling as flac
baselines.json            rows of all songs, means, intervals, and the reasons for missing values
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from p2p_dist.audio import flac
from p2p_dist.common import console, files, records, schemas
from p2p_dist.evaluate.baselines import baseline_stems
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES, Stem, Training
from p2p_dist.evaluate.held_out_songs import Excerpt, beats_of, from_there, peak
from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.averages import Average, average
from p2p_dist.evaluate.measures.measure import Measured, measure
from p2p_dist.evaluate.measures.table import is_pitched
from p2p_dist.generate import inference
from p2p_dist.settings.config import Data, Evaluate, parse_task

SOUNDS = ("input", "target", "ceiling", "true-mix")

_ROOM = 3.0
"""Headroom in dB if a song's level is reduced, because a generated mix may be louder than the true mix."""


@dataclass(frozen=True)
class Reference:
    """One song's measured baselines, and the reasons for missing ones.

    real: descriptors of the true stem in the measured windows, (windows, 41).
    gain: of its audio files, dB; None if it has none.
    """

    measured: dict[str, Measured]
    missing: dict[str, str]
    real: np.ndarray
    gain: float | None


def measure_baselines(
    out: Path,
    dataset: Path,
    excerpts: list[Excerpt],
    data: Data,
    evaluate: Evaluate,
    first: int = 0,
    status: Path | None = None,
) -> dict[str, Reference]:
    """Return the references of all songs, key -> reference. Write baselines.json if it is missing.

    Args:
        dataset: the shards of the training.
        first: number of the song to start with. Processes that start at different songs share the work: a song that
            another process has done is skipped, and two processes that do the same song write the same files.
        status: the file for the progress.
    """
    known, reported = None, evaluate.split  # whose songs can be heard
    order = [*excerpts[first % len(excerpts) :], *excerpts[: first % len(excerpts)]]
    todo = [excerpt for excerpt in order if not _is_there(out, excerpt, excerpt.song.split == reported)]
    if todo:
        known = baseline_stems.training(dataset, data, {excerpt.song.name for excerpt in excerpts})
    with console.Progress("baselines", len(todo), status=status) as progress:
        for done, excerpt in enumerate(todo, 1):
            if not _is_there(out, excerpt, excerpt.song.split == reported):
                assert known is not None
                _measure_song(out, excerpt, known, data, evaluate.iterations, sounding=excerpt.song.split == reported)
            progress.update(done, excerpt.song.name)
    found = {excerpt.song.key: read_reference(out / "references" / f"{excerpt.song.key}.json", excerpt) for excerpt in excerpts}
    _summarise(out, excerpts, found, reported)
    return found


def _is_there(out: Path, excerpt: Excerpt, sounding: bool) -> bool:
    folder, key = out / "references", excerpt.song.key
    sounds = [folder / "audio" / f"{key}-{name}.flac" for name in SOUNDS if sounding]
    return (folder / f"{key}.json").is_file() and all(path.is_file() for path in sounds)


def stems_of(
    excerpt: Excerpt, known: Training, data: Data, iterations: int, device: torch.device | None = None
) -> Iterable[tuple[str, Stem]]:
    """Yield each baseline of a song: its name, and the stem or the reason why it is missing.

    Args:
        device: see `inference.to_stem`.
    """
    input, rate, key, level = excerpt.input, excerpt.rate, excerpt.song.key, known.level
    heard, target, _ = excerpt.song.read()
    tracked = from_there(beats_of(heard, rate, drums="drums" in parse_task(data.task)[0]), excerpt.begins / rate)
    true = excerpt.beats
    pitched = "the stem is pitched, so drums do not apply" if is_pitched(data.task) else None
    yield baseline_stems.COPY, input
    yield baseline_stems.SILENCE, np.zeros_like(input)
    noise = baseline_stems.NO_LEVEL if level is None else baseline_stems.noise_hits(input, rate, level, key)
    yield baseline_stems.NOISE, noise
    for name, beats in ((baseline_stems.GRID_TRACKED, tracked), (baseline_stems.GRID_KNOWN, true)):
        if level is None:
            grid: Stem = baseline_stems.NO_LEVEL
        else:
            grid = baseline_stems.NO_BEATS if beats is None else baseline_stems.rock_grid(input, rate, beats, level)
        yield name, pitched or grid
    yield (
        baseline_stems.FAR,
        baseline_stems.far_away(target, rate, excerpt.begins, len(input), from_there(true, -excerpt.begins / rate)),
    )
    yield baseline_stems.OTHER, baseline_stems.from_training(known, input, rate, true, data, iterations, device, loop=False)
    yield baseline_stems.LOOP, baseline_stems.from_training(known, input, rate, tracked, data, iterations, device, loop=True)
    ceiling = inference.to_stem(excerpt.pictures.targets, excerpt.pictures, input, rate, data, iterations, device)
    yield baseline_stems.CEILING, ceiling


def _measure_song(out: Path, excerpt: Excerpt, known: Training, data: Data, iterations: int, *, sounding: bool) -> None:
    measured, missing, gain = {}, {}, None
    for name, stem in stems_of(excerpt, known, data, iterations):
        if isinstance(stem, str):
            missing[name] = stem
        else:
            measured[name] = measure(stem, excerpt.truth)
        if name == baseline_stems.CEILING and sounding:
            assert not isinstance(stem, str)
            sounds = (excerpt.input, excerpt.target, stem, excerpt.input + excerpt.target)
            gain = flac.quieter(peak(*sounds), _ROOM)
            for sound_name, sound in zip(SOUNDS, sounds, strict=True):
                write_sound(out / "references" / "audio" / f"{excerpt.song.key}-{sound_name}.flac", sound, excerpt, gain)
    content = {
        "name": excerpt.song.name,
        "measured": {name: _plain(one) for name, one in measured.items()},
        "missing": missing,
        "real": [described.tolist() for described in excerpt.truth.real],
        "gain_db": gain,
    }
    records.write(out / "references" / f"{excerpt.song.key}.json", schemas.REFERENCE, content)


def _plain(one: Measured) -> dict[str, Any]:
    described = [None if d is None else d.tolist() for d in one.described]
    return {"row": one.row, "absent": one.absent, "parts": list(one.windows), "described": described}


def read_reference(path: Path, excerpt: Excerpt) -> Reference:
    """Read the measured baselines of a song.

    Raises:
        DamagedError: the file is damaged.
    """
    content = records.read(path, schemas.REFERENCE, "remove it; it will be measured again")
    if not -200 <= (content.get("gain_db") or 0) <= 0:
        raise files.DamagedError(f"{path} is damaged: a gain of {content['gain_db']} dB is not possible; remove it")
    measured = {
        name: Measured(one["row"], one["absent"], one["parts"], [None if d is None else np.array(d) for d in one["described"]])
        for name, one in content["measured"].items()
    }
    gain = content["gain_db"] if "gain_db" in content else unrecorded_gain(excerpt)
    return Reference(measured, content["missing"], np.array(content["real"]).reshape(-1, descriptors.SIZE), gain)


def unrecorded_gain(excerpt: Excerpt) -> float:
    """Return the gain in dB of audio files of schema 1, which did not record it."""
    return 20 * math.log10(0.7 / max(1.0, excerpt.peak))


def gain_for_json(gain: float | None) -> dict[str, float]:
    """Return a gain as dB and as a factor, for JSON; empty for a song without audio files."""
    return {} if gain is None else {"gain_db": gain, "gain": flac.factor(gain)}


def _summarise(out: Path, excerpts: list[Excerpt], found: dict[str, Reference], reported: str) -> None:
    """Write baselines.json. All processes write the same content."""
    content: dict[str, Any] = {"schema": schemas.BASELINES.schema, "songs": {}, "splits": {}}
    for excerpt in excerpts:
        reference = found[excerpt.song.key]
        content["songs"][excerpt.song.key] = {
            "name": excerpt.song.name,
            "split": excerpt.song.split,
            **excerpt.place(),
            **gain_for_json(reference.gain),
            "unrecorded_gain_db": unrecorded_gain(excerpt),
            "rows": {name: one.row for name, one in reference.measured.items()},
            "absent": {name: one.absent for name, one in reference.measured.items()},
            "missing": reference.missing,
        }
    for split in dict.fromkeys((reported, *(excerpt.song.split for excerpt in excerpts))):
        here = [excerpt for excerpt in excerpts if excerpt.song.split == split]
        content["splits"][split] = _split([found[excerpt.song.key] for excerpt in here], [excerpt.real for excerpt in here])
    path = out / "baselines.json"
    text = files.json_text(content)
    if not path.is_file() or path.read_bytes() != text.encode():
        files.write_text(path, text)


def _split(of: list[Reference], real: list[np.ndarray]) -> dict[str, Any]:
    """Average the baselines of all songs. real: descriptors of the whole true stem of each."""
    rows: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in BASELINES:
        there = [(one.measured[name], whole) for one, whole in zip(of, real, strict=True) if name in one.measured]
        reasons = [one.missing[name] for one in of if name in one.missing]
        if there:
            rows[name] = plain(average([[measured] for measured, _ in there], [whole for _, whole in there]))
        if reasons:
            missing[name] = reasons[0] if not there else f"missing in {len(reasons)} of {len(of)} songs: {reasons[0]}"
    distance = descriptors.about_songs([one.real for one in of], real)
    return {"songs": len(of), "rows": rows, "missing": missing, "distance": distance}


def plain(found: Average) -> dict[str, Any]:
    """Return means, intervals and reasons, for JSON."""
    return {"mean": found.mean, "interval": found.interval, "absent": found.absent}


def write_sound(path: Path, sound: np.ndarray, excerpt: Excerpt, gain: float) -> None:
    """Write what can be heard of an excerpt as 24-bit flac with the song's rate and channels, scaled by a gain in dB."""
    part = excerpt.audible
    flac.write(path, sound[part], excerpt.rate, 24, excerpt.begins + part.start, gain)

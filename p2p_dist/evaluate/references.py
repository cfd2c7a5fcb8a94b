"""The baselines of a run: made and measured once for each held-out song, then averaged.

references/KEY.json       what was measured of one song's baselines and true stem
references/audio/         for each reported song: input, true stem, true mix and ceiling as flac
baselines.json            rows of all songs, means, intervals, and the reasons of what is absent
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from p2p_dist import console, files, records
from p2p_dist.config import Config
from p2p_dist.evaluate import baselines, generate
from p2p_dist.evaluate.averages import Average, average
from p2p_dist.evaluate.baselines import BASELINES, Stem, Training
from p2p_dist.evaluate.excerpts import Excerpt, beats_of, from_there
from p2p_dist.evaluate.metrics import Measured, is_pitched, measure
from p2p_dist.records import Maybe

SOUNDS = ("input", "target", "ceiling", "true-mix")


@dataclass(frozen=True)
class Reference:
    """Of one song: its baselines as measured, why others are missing, and the descriptors of its true stem (windows, 41)."""

    measured: dict[str, Measured]
    missing: dict[str, str]
    real: np.ndarray


def refer(
    out: Path, dataset: Path, excerpts: list[Excerpt], reported: str, config: Config, first: int = 0
) -> dict[str, Reference]:
    """The references of all songs, key -> reference; baselines.json is written when it is not there.

    Args:
        dataset: the shards of the training. reported: the split whose songs can be heard.
        first: the song to begin with. Processes that begin at different songs share the work without a word: a song
            that another has done is there, and two that do the same one write the same.
    """
    known = None
    order = [*excerpts[first % len(excerpts) :], *excerpts[: first % len(excerpts)]]
    todo = [excerpt for excerpt in order if not _is_there(out, excerpt, excerpt.song.split == reported)]
    if todo:
        known = baselines.training(dataset, config.data, {excerpt.song.name for excerpt in excerpts})
    with console.Progress("baselines", len(todo)) as progress:
        for done, excerpt in enumerate(todo, 1):
            if not _is_there(out, excerpt, excerpt.song.split == reported):
                assert known is not None
                _make(out, excerpt, known, config, sounding=excerpt.song.split == reported)
            progress.update(done, excerpt.song.name)
    found = {excerpt.song.key: _read(out / "references" / f"{excerpt.song.key}.json") for excerpt in excerpts}
    _summarise(out, excerpts, found, reported)
    return found


def _is_there(out: Path, excerpt: Excerpt, sounding: bool) -> bool:
    folder, key = out / "references", excerpt.song.key
    sounds = [folder / "audio" / f"{key}-{name}.flac" for name in SOUNDS if sounding]
    return (folder / f"{key}.json").is_file() and all(path.is_file() for path in sounds)


def stems_of(excerpt: Excerpt, known: Training, config: Config) -> Iterable[tuple[str, Stem]]:
    """Each baseline of a song, one by one: its name, and the stem or the reason why there is none."""
    input, rate, key, level = excerpt.input, excerpt.rate, excerpt.song.key, known.level
    heard, target, _ = excerpt.song.read()
    tracked = from_there(beats_of(heard, rate), excerpt.begins / rate)
    true = excerpt.beats
    pitched = "the stem has a pitch: drums would not be it" if is_pitched(config.data.task) else None
    yield baselines.COPY, input
    yield baselines.SILENCE, np.zeros_like(input)
    yield baselines.NOISE, baselines.noise_hits(input, rate, level, key)
    for name, beats in ((baselines.GRID_TRACKED, tracked), (baselines.GRID_KNOWN, true)):
        grid = baselines.NO_BEATS if beats is None else baselines.rock_grid(input, rate, beats, level)
        yield name, pitched or grid
    yield baselines.FAR, baselines.far_away(target, rate, excerpt.begins, len(input), from_there(true, -excerpt.begins / rate))
    yield baselines.OTHER, baselines.from_training(known, input, rate, true, config, loop=False)
    yield baselines.LOOP, baselines.from_training(known, input, rate, tracked, config, loop=True)
    yield baselines.CEILING, generate.to_stem(excerpt.pictures.targets, excerpt.pictures, input, rate, config)


def _make(out: Path, excerpt: Excerpt, known: Training, config: Config, *, sounding: bool) -> None:
    measured, missing = {}, {}
    for name, stem in stems_of(excerpt, known, config):
        if isinstance(stem, str):
            missing[name] = stem
        else:
            measured[name] = measure(stem, excerpt.truth)
        if name == baselines.CEILING and sounding:
            assert not isinstance(stem, str)
            sounds = (excerpt.input, excerpt.target, stem, excerpt.input + excerpt.target)
            for sound_name, sound in zip(SOUNDS, sounds, strict=True):
                write_sound(out / "references" / "audio" / f"{excerpt.song.key}-{sound_name}.flac", sound, excerpt)
    content = {
        "name": excerpt.song.name,
        "measured": {name: _plain(one) for name, one in measured.items()},
        "missing": missing,
        "real": [described.tolist() for described in excerpt.truth.real],
    }
    files.write_json(out / "references" / f"{excerpt.song.key}.json", content)


def _plain(one: Measured) -> dict[str, Any]:
    described = [None if d is None else d.tolist() for d in one.described]
    return {"row": one.row, "absent": one.absent, "parts": list(one.parts), "described": described}


_ROW = {str: Maybe(float)}
_DESCRIBED = (float,) * 41
_MEASURED = {"row": _ROW, "absent": {str: str}, "parts": [_ROW], "described": [Maybe(_DESCRIBED)]}
_SHAPE = {"name": str, "measured": {str: _MEASURED}, "missing": {str: str}, "real": [_DESCRIBED]}


def _read(path: Path) -> Reference:
    content = records.read(path, _SHAPE, "remove it: it is measured again")
    measured = {
        name: Measured(one["row"], one["absent"], one["parts"], [None if d is None else np.array(d) for d in one["described"]])
        for name, one in content["measured"].items()
    }
    return Reference(measured, content["missing"], np.array(content["real"]).reshape(-1, 41))


def _summarise(out: Path, excerpts: list[Excerpt], found: dict[str, Reference], reported: str) -> None:
    """Write baselines.json: the same whoever writes it."""
    content: dict[str, Any] = {"songs": {}, "splits": {}}
    for excerpt in excerpts:
        reference = found[excerpt.song.key]
        content["songs"][excerpt.song.key] = {
            "name": excerpt.song.name,
            "split": excerpt.song.split,
            "begins": excerpt.begins / excerpt.rate,
            "seconds": excerpt.seconds,
            "rows": {name: one.row for name, one in reference.measured.items()},
            "absent": {name: one.absent for name, one in reference.measured.items()},
            "missing": reference.missing,
        }
    for split in dict.fromkeys((reported, *(excerpt.song.split for excerpt in excerpts))):
        of = [found[excerpt.song.key] for excerpt in excerpts if excerpt.song.split == split]
        content["splits"][split] = _split(of)
    path = out / "baselines.json"
    text = files.json_text(content)
    if not path.is_file() or path.read_bytes() != text.encode():
        files.write_text(path, text)


def _split(of: list[Reference]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in BASELINES:
        there = [one for one in of if name in one.measured]
        reasons = [one.missing[name] for one in of if name in one.missing]
        if there:
            rows[name] = plain(average([[one.measured[name]] for one in there], [one.real for one in there]))
        if reasons:
            missing[name] = reasons[0] if not there else f"missing in {len(reasons)} of {len(of)} songs: {reasons[0]}"
    return {"songs": len(of), "rows": rows, "missing": missing}


def plain(found: Average) -> dict[str, Any]:
    """Means, intervals and reasons, for JSON."""
    return {"mean": found.mean, "interval": found.interval, "absent": found.absent}


def write_sound(path: Path, sound: np.ndarray, excerpt: Excerpt) -> None:
    """Write flac of 24 bits at the song's own rate and channels, scaled by the excerpt's gain."""
    with files.replacing(path) as temporary:
        clipped = np.clip(sound * np.float32(excerpt.gain), -1, 1)
        soundfile.write(temporary, clipped, excerpt.rate, format="FLAC", subtype="PCM_24")

"""Make the samples of a song's shard: its windows and augmented copies of them, or existing npz pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import stems
from p2p_dist.audio.mixer import Sum
from p2p_dist.data import augment, npz_pairs, pairs, shard_file, song_sums
from p2p_dist.data.shard_file import Sample
from p2p_dist.data.song_record import KeyedSong
from p2p_dist.settings.config import Data, parse_task

COUNTED = ("silent_windows", "silent_dropped", "padded_windows", "copies")
"""Names of the counts of a song's windows in its record."""


def from_sound(song: KeyedSong, sides: list[Sum], rate: int, data: Data) -> tuple[Iterable[Sample], dict[str, int]]:
    """Return the samples of a decoded song, made one at a time, and the counts of its windows.

    Args:
        sides: input and target. The list is emptied, to free the memory early.
    """
    heard, made = sides
    pictures = pairs.make(heard.sound, made.sound, rate, data)
    silent = pairs.silent_windows(pictures, made.sound, rate, data)
    del heard, made
    sides.clear()
    training = song.source.split == "train"
    kept = np.ones(len(silent), bool)
    if training:
        chosen = [augment.random_for("silent", data.seed, song.source.name, n).random() for n in range(len(silent))]
        kept = ~silent | (np.array(chosen) < data.silent_share)
    padded = int(kept[-1] and pictures.starts[-1] + data.frames > pictures.frames)
    copies = int(kept.sum()) * data.copies if training else 0
    counts = dict(zip(COUNTED, (int(silent.sum()), int((~kept).sum()), padded, copies), strict=True))
    if not kept.any():
        return [], counts
    samples = _windows(song, pictures, kept, data)
    return itertools.chain(samples, _copies(song, pictures, kept, data)) if copies else samples, counts


def _note(song: KeyedSong, pictures: pairs.Pictures, number: int, data: Data) -> dict[str, Any]:
    """Return the json of a pair. All pairs have the same fields, because other programs read them as a table."""
    return {
        "song": song.source.name,
        "split": song.source.split,
        "task": data.task,
        "window": number,
        "copy": 0,
        "first_frame": int(pictures.starts[number]),
        "reference": float(pictures.references[number]),
    }


def _windows(song: KeyedSong, pictures: pairs.Pictures, kept: np.ndarray, data: Data) -> Iterator[Sample]:
    for number in map(int, np.flatnonzero(kept)):
        note = _note(song, pictures, number, data)
        yield shard_file.pair(song.key, pictures.inputs[number], pictures.targets[number], note)


def _copies(song: KeyedSong, pictures: pairs.Pictures, kept: np.ndarray, data: Data) -> Iterator[Sample]:
    """Yield augmented copies of the kept windows. Decodes the song again in pieces, because all its stems need much memory."""
    names = [name for side in parse_task(data.task) for name in side]
    rate, channels, _ = stems.header(song.source)
    values = len(names) * (channels or 2) * max(rate, data.sample_rate)  # in a second
    at_once = max(int(song_sums.TOGETHER / (4 * values)), 1)  # seconds
    margin = 1 + -(-augment.reach(data) // data.sample_rate)  # one second more for the resampling filter

    def piece_of(number: int) -> int:
        return int(pictures.starts[number]) * data.hop_length // data.sample_rate // at_once

    apart: dict[str, np.ndarray] = {}
    for piece, numbers in itertools.groupby(map(int, np.flatnonzero(kept)), piece_of):
        apart.clear()  # free this memory before the next piece is decoded
        begin, end = max(piece * at_once - margin, 0), (piece + 1) * at_once + margin
        rate, sums = stems.load_sums(song.source, [(name,) for name in names], part=(begin, end))
        for name in names:
            apart[name] = stems.resample(np.ascontiguousarray(sums.pop(0).sound), rate, data.sample_rate)
        for number in numbers:
            note = _note(song, pictures, number, data)
            for copy in range(1, data.copies + 1):
                place, before = (note["first_frame"], note["reference"]), begin * data.sample_rate
                input, target = augment.copy_of(apart, *place, data, song.source.name, number, copy, before)
                yield shard_file.pair(song.key, input, target, {**note, "copy": copy})


def from_npz(song: KeyedSong, data: Data) -> tuple[Iterator[Sample], dict[str, int]]:
    """Return the samples of existing pairs, unchanged and read one at a time, and the counts of windows, all 0.

    Raises:
        ValueError: the settings are not the thesis's. While the samples are read: see `npz_pairs.read`, or the dtypes differ.
    """
    if data.representation != "thesis":
        raise ValueError(f"{song.source.path}: npz pairs need --preset thesis (data.representation thesis)")
    return _read_npz(song, data), dict.fromkeys(COUNTED, 0)


def _read_npz(song: KeyedSong, data: Data) -> Iterator[Sample]:
    kinds: dict[np.dtype[Any], Path] = {}
    for number, path in enumerate(song.source.pairs):
        input, target = npz_pairs.read(path, data)
        kinds[input.dtype] = path
        if len(kinds) > 1:
            raise ValueError("the pairs differ in dtype: " + ", ".join(f"{kind} in {p}" for kind, p in kinds.items()))
        note = {"song": song.source.name, "split": song.source.split, "window": number, "copy": 0, "file": path.name}
        yield shard_file.pair(song.key, input, target, note)

"""What guides a generator through training songs: pictures of sketches of the drums, and the place in the beat.

guides.json       written last: of every song its file, with size and sha256
00003-title.f16   float16 (variants, frames, channels * mels + 2), little-endian: one row a frame, so that a window of any
                  variant is one piece of the file. A row holds the bands of the picture in dB, as in `pairs.Pictures`, then
                  sine and cosine of the place in the beat, both 0 where the beat is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import files, linux, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.data.pairs import CEILING, FLOOR
from p2p_dist.settings.config import Model, Train

NAME = "guides.json"
AGAIN = "remove it, then run the launch command again to recreate it"
TRUE, PREDICTED = 3, 1
"""Variants of a song with its true strokes, which come first, and with predicted ones."""

_DTYPE = np.dtype("<f2")


def variants_of(train: Train) -> int:
    """Return the number of variants of each song."""
    return TRUE + PREDICTED * train.predicted_strokes


def rows_of(picture: np.ndarray, beats: np.ndarray | None) -> np.ndarray:
    """Join a sketch's picture (channels, mels, frames), dB, and the place of each frame in beats, (frames,), to rows.

    Args:
        beats: beats since any beat of the song; None if they are unknown.
    """
    frames = picture.shape[2]
    bands = picture.reshape(-1, frames).T
    angle = np.zeros(frames) if beats is None else 2 * np.pi * (beats % 1)
    place = np.stack([np.sin(angle), np.cos(angle)], axis=1) * (beats is not None)
    return np.concatenate([bands, place], axis=1).astype(_DTYPE)


def file_name(key: str) -> str:
    """Return the name of a song's file."""
    return f"{key}.f16"


def write_song(folder: Path, key: str, variants: Sequence[np.ndarray]) -> dict[str, Any]:
    """Write the variants of one song, each as `rows_of` returns them; return its entry for `write_record`."""
    content = np.stack(variants).astype(_DTYPE)
    path = folder / file_name(key)
    files.write_bytes(path, content.tobytes())
    return {"frames": content.shape[1], "bytes": content.nbytes, "sha256": files.sha256_file(path)}


def write_record(folder: Path, variants: int, width: int, songs: dict[str, Any], training: str | None = None) -> None:
    """Write guides.json. songs: key -> entry of `write_song`. training: digest of the training songs in dataset.json."""
    content = {"variants": variants, "width": width, "songs": songs, "training": training}
    records.write(folder / NAME, schemas.GUIDES, content)


class Guides:
    """The guides of a run's training songs. One thread at a time may read.

    Args:
        folder: with guides.json.

    Raises:
        FileNotFoundError: there is no guides.json: the stage `pattern` has not finished.
        DamagedError: the record is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        content = records.read(folder / NAME, schemas.GUIDES, AGAIN)
        self.variants, self.width, self.songs = content["variants"], content["width"], content["songs"]
        self.digest = files.digest([self.variants, self.width, self.songs])[:12]
        self._open: dict[str, int] = {}
        self._most_open = linux.allow_open_files(len(self.songs))
        self._seen: dict[str, tuple[int, int]] = {}

    def read(self, key: str, variant: int, start: int, frames: int) -> np.ndarray:
        """Read the rows of `frames` frames from `start` on, float16 (frames, width). Behind the song's end is silence.

        Raises:
            DamagedError: a file is not the one that was written. OSError: it can't be read.
        """
        if key not in self.songs:
            raise ValueError(f"{self.folder / NAME} has no sketch of {key}: remove this file and run the launch command again")
        about = self.songs[key]
        if key not in self._open:
            while len(self._open) >= self._most_open:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[key] = self._checked(key, about)
        there = min(frames, about["frames"] - start)
        row = self.width * _DTYPE.itemsize
        wanted = max(there, 0) * row
        content = os.pread(self._open[key], wanted, (variant * about["frames"] + start) * row)
        if len(content) != wanted:
            raise DamagedError(f"{self.folder / file_name(key)} is cut off; {AGAIN}")
        return padded(np.frombuffer(content, _DTYPE).reshape(-1, self.width), frames)

    def _checked(self, key: str, about: dict[str, Any]) -> int:
        """Open a song's file. Its content must be the one in the record, or the file the one that was found to have it."""
        path = self.folder / file_name(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DamagedError(f"{path} is missing; remove {NAME} beside it and run the launch command again") from None
        size = self.variants * about["frames"] * self.width * _DTYPE.itemsize
        found = os.fstat(descriptor)
        seen = (found.st_ino, found.st_mtime_ns)
        is_same = size == about["bytes"] == found.st_size
        if not is_same or (self._seen.get(key) != seen and files.sha256_file(path) != about["sha256"]):
            os.close(descriptor)
            raise DamagedError(f"{path} is damaged: it is not the one that {NAME} describes; {AGAIN}")
        self._seen[key] = seen
        return descriptor

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.popitem()[1])


def padded(rows: np.ndarray, frames: int) -> np.ndarray:
    """Fill rows up to `frames` rows: a silent sketch, the beat unknown."""
    missing = frames - len(rows)
    if missing <= 0:
        return rows
    silence = np.full((missing, rows.shape[1]), FLOOR, rows.dtype)
    silence[:, -2:] = 0
    return np.concatenate([rows, silence])


def to_guide(rows: np.ndarray, mels: int, model: Model) -> np.ndarray:
    """Convert the rows of a window, (frames, width), to the guide of a generator: float32 (guide_channels, mels, frames).

    The picture is scaled to -1 .. 1 like an input; sine and cosine are the same in all bands.
    """
    frames = len(rows)
    low, high = FLOOR, CEILING["default"]
    picture = (rows[:, :-2].T.astype(np.float32) - low) * np.float32(2 / (high - low)) - 1
    parts = [picture.reshape(-1, mels, frames)]
    if model.beat_phase:
        parts.append(np.broadcast_to(rows[:, -2:].T[:, None].astype(np.float32), (2, mels, frames)))
    return np.concatenate(parts)

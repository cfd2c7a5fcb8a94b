"""Write sound block by block as FLAC, WAV, MP3 or Ogg Vorbis."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from p2p_dist.audio import memory
from p2p_dist.common import files

FORMATS = ("flac", "wav", "mp3", "ogg")

STEP = 2.0**-23
"""Quantisation step of 24 bits, full scale 1."""

_LARGEST_WAV = (1 << 32) - (1 << 16)  # bytes: a header of 32 bits tells no more
_LARGEST_BLOCK = 1 << 14  # samples: libsndfile's Vorbis encoder keeps a block on its stack
_HIGHEST_OGG = 200_000  # Hz: libvorbis has no encoder above it, and libsndfile then crashes
_LAST_FLUSH = 1 << 20  # bytes: more than an encoder holds back until its file is closed


class SoundFile:
    """A sound file that is being written, a context manager. FLAC and WAV have 24 bits, exactly rounded.

    Args:
        target: a path, or a descriptor. kind: one of `FORMATS`. samples: how long it will be, of one channel.

    Raises:
        ValueError: the format does not support this. The message names one that does.
        OSError: also by `write` and at the end of the context, see `errors_of`.
    """

    def __init__(self, target: Path | int, kind: str, rate: int, channels: int, samples: int = 0) -> None:
        self.is_exact = kind in ("flac", "wav")
        if not self.is_exact and channels > 2:
            raise ValueError(f"{kind} of {channels} channels is not supported: choose --format flac or wav")
        if kind == "ogg" and rate > _HIGHEST_OGG:
            raise ValueError(f"ogg does not support {rate} Hz: choose --format flac or wav")
        self.path = target if isinstance(target, Path) else None
        name, subtype = kind.upper(), "PCM_24" if self.is_exact else None  # None: MPEG layer III, Vorbis
        if kind == "wav":
            # With more than two channels the header names them.
            name = "RF64" if 3 * samples * channels > _LARGEST_WAV else "WAVEX" if channels > 2 else "WAV"
        try:
            file = os.fsencode(target) if isinstance(target, Path) else target  # a name that is not UTF-8, too
            self.file: Any = soundfile.SoundFile(file, "w", rate, channels, subtype, format=name)
        except soundfile.LibsndfileError as error:
            if self.path is not None and self.path.exists():
                _check_room(self.path)
            why = error.error_string.removeprefix("Error : ").rstrip(".")
            other = "flac or wav" if kind != "flac" else "wav"
            raise ValueError(
                f"{kind} does not support {channels} channels at {rate} Hz ({why}): choose --format {other}"
            ) from error

    def write(self, sound: np.ndarray) -> None:
        """Write the next samples, (samples, channels). Values beyond full scale are clipped."""
        for start in range(0, len(sound), _LARGEST_BLOCK):
            block = sound[start : start + _LARGEST_BLOCK]
            with errors_of(self.path):
                if self.is_exact:  # libsndfile's own scale is one step short of full
                    steps = np.clip(np.rint(block / STEP), -(1 << 23), (1 << 23) - 1)
                    self.file.write(steps.astype(np.int32) << 8)
                else:
                    self.file.write(np.clip(block, -1, 1).astype(np.float32))

    def __enter__(self) -> SoundFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(soundfile.LibsndfileError):  # the error on the way says more
                self.file.close()
            return
        with errors_of(self.path, at_end=True):
            self.file.close()


@contextlib.contextmanager
def errors_of(path: Path | None, *, at_end: bool = False) -> Iterator[None]:
    """Tell why libsndfile can't write a file: it says only that it can't, and nothing where its last flush fails.

    A file object in Python would know, but an exception in its methods, such as that of Ctrl-C, is printed and lost.

    Args:
        path: None for what is in memory. at_end: the file is closed inside: check that all of it was written.

    Raises:
        OSError: for instance the disk is full. What is in the file then is of no use.
    """
    try:
        yield
    except soundfile.LibsndfileError as error:
        if path is not None:
            _check_room(path)
        elif resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:  # it holds for files in memory, too
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), "a sound in memory") from error
        why = f"libsndfile can't write it ({error.error_string.rstrip('.')})"
        raise OSError(errno.EIO, why, "a sound in memory" if path is None else str(path)) from error
    if at_end and path is not None:
        _check_room(path)


def _check_room(path: Path) -> None:
    """Check that something can be written behind the end of a file; where a last flush failed, it can't."""
    size = path.stat().st_size
    try:
        with path.open("ab", buffering=0) as file:
            left = _LAST_FLUSH
            while left:
                left -= file.write(bytes(left))
            file.truncate(size)
    except OSError as error:
        files.add_name(error, path)
        raise


def check(kind: str, rate: int, channels: int) -> None:
    """Check, before long work, that a format supports the channels and rate.

    Raises:
        ValueError: see `SoundFile`.
    """
    with SoundFile(memory.descriptor(), kind, rate, channels) as file:
        file.write(np.zeros((16, channels), np.float32))


def flac(sound: np.ndarray, rate: int) -> bytes:
    """Encode sound, (samples) or (samples, channels), as 16-bit FLAC.

    Raises:
        OSError: see `errors_of`.
    """
    with memory.file() as opened, errors_of(None):
        soundfile.write(opened.fileno(), sound, rate, format="FLAC", subtype="PCM_16", closefd=False)
        opened.seek(0)
        return opened.read()

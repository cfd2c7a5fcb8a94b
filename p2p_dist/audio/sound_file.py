"""Write sound block by block as FLAC, WAV, MP3 or Ogg Vorbis."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

FORMATS = ("flac", "wav", "mp3", "ogg")

STEP = 2.0**-23
"""Quantisation step of 24 bits, full scale 1."""

_LARGEST_WAV = (1 << 32) - (1 << 16)  # bytes: a header of 32 bits tells no more
_LARGEST_BLOCK = 1 << 14  # samples: libsndfile's Vorbis encoder keeps a block on its stack


class SoundFile:
    """A sound file that is being written, a context manager. FLAC and WAV have 24 bits, exactly rounded."""

    def __init__(self, target: Path | io.BytesIO, kind: str, rate: int, channels: int, samples: int = 0) -> None:
        """Args: kind: one of `FORMATS`. samples: how long it will be, of one channel.

        Raises:
            ValueError: the format does not support this. The message names one that does.
            OSError: the file can't be written; so do `write` and the end of the context.
        """
        self.is_exact = kind in ("flac", "wav")
        if not self.is_exact and channels > 2:
            raise ValueError(f"{kind} of {channels} channels is not supported: choose --format flac or wav")
        name, subtype = kind.upper(), {"mp3": None, "ogg": "VORBIS"}.get(kind, "PCM_24")
        if kind == "wav":
            # With more than two channels the header names them.
            name = "RF64" if 3 * samples * channels > _LARGEST_WAV else "WAVEX" if channels > 2 else "WAV"
        self.target = _Target(target)
        try:
            with self.target.errors():
                self.file: Any = soundfile.SoundFile(self.target, "w", rate, channels, subtype, format=name)
        except soundfile.LibsndfileError as error:
            self.target.close()
            why = error.error_string.removeprefix("Error : ").rstrip(".")
            other = "flac or wav" if kind != "flac" else "wav"
            raise ValueError(
                f"{kind} does not support {channels} channels at {rate} Hz ({why}): choose --format {other}"
            ) from error

    def write(self, sound: np.ndarray) -> None:
        """Write the next samples, (samples, channels). Values beyond full scale are clipped."""
        for start in range(0, len(sound), _LARGEST_BLOCK):
            block = sound[start : start + _LARGEST_BLOCK]
            with self.target.errors():
                if self.is_exact:  # libsndfile's own scale is one step short of full
                    steps = np.clip(np.rint(block / STEP), -(1 << 23), (1 << 23) - 1)
                    self.file.write(steps.astype(np.int32) << 8)
                else:
                    self.file.write(np.clip(block, -1, 1).astype(np.float32))

    def __enter__(self) -> SoundFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with self.target.errors() if kind is None else contextlib.suppress(soundfile.LibsndfileError):
                self.file.close()
        finally:
            self.target.close()


class _Target:
    """What libsndfile writes to. It says of an error only that there was one, and of one in the last flush nothing."""

    def __init__(self, target: Path | io.BytesIO) -> None:
        self.file = target.open("w+b", buffering=0) if isinstance(target, Path) else target
        self.name = str(target) if isinstance(target, Path) else None
        self.seek, self.tell, self.read = self.file.seek, self.file.tell, self.file.read
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of it, or keep the error: an exception in a callback of a C library is printed and lost."""
        done = 0
        try:
            while done < len(data):
                done += self.file.write(data[done:])
        except OSError as error:
            self.error = self.error or error
        return done

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the error of writing in place of libsndfile's, or soundfile's where fewer samples were written."""
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError):
            if self.error is None:
                raise
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror, self.name) from self.error

    def close(self) -> None:
        if self.name is not None:
            self.file.close()


def check(kind: str, rate: int, channels: int) -> None:
    """Check, before long work, that a format supports the channels and rate.

    Raises:
        ValueError: see `SoundFile`.
    """
    with SoundFile(io.BytesIO(), kind, rate, channels) as file:
        file.write(np.zeros((16, channels), np.float32))

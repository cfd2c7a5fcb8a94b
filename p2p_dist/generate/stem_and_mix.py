"""Write the files of a song: the new stem, and the song plus the stem, at the song's rate and channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from p2p_dist.audio import flac, sound_file
from p2p_dist.audio.decode import Decoded, downmix
from p2p_dist.audio.hits import RATE, Bands
from p2p_dist.audio.rhythm import Rhythm
from p2p_dist.audio.stems import resample_blocks
from p2p_dist.generate.model import Model
from p2p_dist.generate.request import Options

BLOCK = 1 << 16
"""Samples of a stem read at once."""


def write(
    song: Decoded,
    raw: Path,
    model: Model,
    options: Options,
    paths: dict[str, Path],
    gain: float,
    in_stem: Sequence[Bands | Rhythm] = (),
    in_song: Sequence[Bands | Rhythm] = (),
) -> float:
    """Write stem and mix with a gain in dB. Return the largest absolute sample before the gain.

    Args:
        raw: the stem as generated. in_stem, in_song: what analyses the stem and the song.
    """
    scale, loudest = flac.factor(gain), 0.0
    stem_at = _Reader(resample_blocks(_blocks(raw, model.data.picture_channels), model.data.sample_rate, song.rate))
    level = np.float32(flac.factor(options.level))
    stem_heard, song_heard = _Resampled(song.rate, in_stem), _Resampled(song.rate, in_song)
    with ExitStack() as stack:
        stem_file, mix_file = (
            stack.enter_context(sound_file.SoundFile(paths[kind], options.format, song.rate, len(song.channels), song.samples))
            for kind in ("stem", "mix")
        )
        for block in song.blocks():
            stem = np.zeros(block.shape)  # float64, so that scaling adds no rounding error
            mid, *side = (level * stem_at.take(len(block))).T
            for place, sign in zip(song.front, (1, -1), strict=False):
                stem[:, place] = mid + (sign * side[0] if side and len(song.front) == 2 else 0)
            if stem_file.is_exact and not gain:
                stem = np.rint(stem / sound_file.STEP) * sound_file.STEP  # so that mix minus stem is a song of 24 bits exactly
            mix = block + stem
            loudest = max(loudest, float(np.abs(mix).max()), float(np.abs(stem).max()))
            stem_file.write(stem * scale)
            mix_file.write(mix * scale)
            stem_heard.add(stem)
            song_heard.add(block)
    stem_heard.finish()
    song_heard.finish()
    return loudest


class _Reader:
    """Reads any number of samples from a signal that arrives in blocks. Returns silence after its end."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self.blocks = blocks
        self.held: np.ndarray | None = None

    def take(self, samples: int) -> np.ndarray:
        """Return the next `samples` samples, (samples, channels)."""
        while self.held is None or len(self.held) < samples:
            block = next(self.blocks, None)
            if block is None:
                assert self.held is not None, "a stem without samples"
                missing = samples - len(self.held)
                block = np.zeros((missing, self.held.shape[1]), np.float32)
            self.held = block if self.held is None else np.concatenate([self.held, block])
        part, self.held = self.held[:samples], self.held[samples:]
        return part


class _Resampled:
    """Resamples blocks of audio to mono at `RATE` and passes them to `ears`."""

    def __init__(self, rate: int, ears: Sequence[Bands | Rhythm]) -> None:
        import soxr

        self.ears = ears
        self.stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, (samples, channels)."""
        if self.ears:
            self._pass(np.ascontiguousarray(downmix(block)[:, None], np.float32))

    def finish(self) -> None:
        """Process the end of the audio; call it after the last `add`."""
        if self.ears:
            self._pass(np.empty((0, 1), np.float32), last=True)
        for ear in self.ears:
            ear.finish()

    def _pass(self, block: np.ndarray, *, last: bool = False) -> None:
        resampled = self.stream.resample_chunk(block, last=last)[:, 0]
        for ear in self.ears:
            ear.add(resampled)


def _blocks(raw: Path, channels: int) -> Iterator[np.ndarray]:
    with raw.open("rb") as file:
        while len(part := np.fromfile(file, np.float32, BLOCK * channels)):
            yield part.reshape(-1, channels)

"""Compute a song's spectrograms and the generated stem's mel power window by window, without the whole song in memory.

The windows are those of training (data/pairs.py) with two differences: they overlap by at least half, whatever the hop in
training, and the noise is drawn separately for each block of frames.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from p2p_dist.audio.spectrogram import frame_count, mel_power_of_part
from p2p_dist.data import pairs
from p2p_dist.generate import inference
from p2p_dist.generate.drummer import Guide
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Data
from p2p_dist.settings.config import Model as Network
from p2p_dist.train.seeding import number_from

_NOISE = 256  # frames of noise drawn at a time
_FRAMES = 64  # frames of a spectrogram computed at a time


@dataclass(frozen=True)
class Window:
    """One window of a song: first frame, spectrogram in dB (channels, mels, frames), and the power that is 0 dB in it."""

    start: int
    picture: np.ndarray
    reference: float


class Loudness:
    """Histogram of the powers in a spectrogram, in steps of 0.004 dB, for the level reference of a song of any length."""

    _DROPPED = 13  # of the 23 bits of a float32's mantissa; the order of positive floats is that of their bits

    def __init__(self) -> None:
        self.counts = np.zeros(1 << (31 - self._DROPPED), np.int64)

    def add(self, power: np.ndarray) -> None:
        """Add the values of a block of the spectrogram, float32, not negative."""
        bits = np.ascontiguousarray(power, np.float32).view(np.uint32).ravel() >> self._DROPPED
        self.counts += np.bincount(bits, minlength=len(self.counts))

    def reference(self) -> float:
        """Return `pairs.level_reference` of the whole spectrogram."""
        place = pairs.LOUDEST_SHARE * (self.counts.sum() - 1)
        number = int(np.searchsorted(self.counts.cumsum(), place, side="right"))
        middle = np.uint32((number << self._DROPPED) + (1 << (self._DROPPED - 1)))
        return max(float(middle.view(np.float32)), pairs.LOWEST_REFERENCE)


def hop(data: Data) -> int:
    """Return the hop between windows in generation, in frames."""
    return min(data.window_hop, data.frames // 2)


def mels(signal: Iterator[np.ndarray], data: Data) -> Iterator[np.ndarray]:
    """Yield the mel power of centred frames, in blocks (channels, mels, frames). signal: blocks (samples, channels)."""
    width, step = data.n_fft + (_FRAMES - 1) * data.hop_length, _FRAMES * data.hop_length
    held = None
    for block in _padded(signal, data.n_fft // 2):
        held = block if held is None else np.concatenate([held, block])
        at = 0
        while len(held) - at >= width:
            yield _mels(held[at : at + width], data)
            at += step
        held = held[at:].copy()
    if held is not None and len(held) >= data.n_fft:
        yield _mels(held, data)


def _padded(signal: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Yield the signal with `samples` samples of silence before and after it."""
    silence = None
    for block in signal:
        if silence is None:
            silence = np.zeros((samples, block.shape[1]), np.float32)
            yield silence
        yield block
    if silence is not None:
        yield silence


def _mels(part: np.ndarray, data: Data) -> np.ndarray:
    power = (mel_power_of_part(one, data.sample_rate, data.n_fft, data.hop_length, data.mels) for one in part.T)
    return np.stack(list(power))


def starts(frames: int, data: Data) -> range:
    """Return the first frames of the windows of a song with `frames` frames. The last window covers its end."""
    beyond = max(frames - data.frames, 0)
    return range(0, hop(data) * -(-beyond // hop(data)) + 1, hop(data))


def windows(signal: Iterator[np.ndarray], samples: int, reference: float, data: Data) -> Iterator[Window]:
    """Yield the windows of a song with `samples` samples at the model's rate.

    Args:
        reference: the power that is 0 dB in all windows. Ignored in the thesis's representation, where each has its own.
    """
    if data.representation == "thesis":
        yield from _thesis(signal, samples, data)
        return
    pictures = (pairs.to_picture(power, reference, "default") for power in mels(signal, data))
    cut = _cut(pictures, starts(frame_count(samples, data.hop_length), data), data.frames, pairs.FLOOR)
    for start, picture in cut:
        yield Window(start, picture, reference)


def _thesis(signal: Iterator[np.ndarray], samples: int, data: Data) -> Iterator[Window]:
    """Yield windows in the thesis's representation: separate spectrograms, each with its maximum as reference."""
    width = data.hop_length * (data.frames - 1)
    places = [start * data.hop_length for start in starts(frame_count(samples, data.hop_length), data)]
    for place, part in _cut((block.T for block in signal), places, width, 0.0):
        power = np.concatenate(list(mels(iter([part.T]), data)), axis=2)
        loudest = float(power.max())
        yield Window(place // data.hop_length, pairs.to_picture(power, loudest, "thesis"), loudest)


def _cut(parts: Iterator[np.ndarray], places: range | list[int], width: int, fill: float) -> Iterator[tuple[int, np.ndarray]]:
    """Cut blocks along the last axis into pieces of `width` that start at `places` (ascending). Pad the end with `fill`."""
    held, at = None, 0  # `held` starts at `at`
    remaining = iter(places)
    place = next(remaining, None)
    for part in parts:
        held = part if held is None else np.concatenate([held, part], axis=-1)
        while place is not None and at + held.shape[-1] >= place + width:
            yield place, held[..., place - at : place - at + width]
            place = next(remaining, None)
        drop = min((place if place is not None else at + held.shape[-1]) - at, held.shape[-1])
        held, at = held[..., drop:].copy(), at + drop
    while place is not None:
        assert held is not None, "a signal without samples"
        piece = held[..., max(place - at, 0) :]
        missing = [(0, 0)] * (piece.ndim - 1) + [(0, width - piece.shape[-1])]
        yield place, np.pad(piece, missing, constant_values=fill)
        place = next(remaining, None)


class Noise:
    """The noise input, N(0, 1). It depends on frame and seed only, so it is equal in overlapping windows."""

    def __init__(self, channels: int, mels: int, seed: int) -> None:
        self.channels, self.mels, self.seed = channels, mels, seed
        self.drawn: dict[int, torch.Tensor] = {}

    def cut(self, start: int, frames: int) -> torch.Tensor:
        """Return the noise for `frames` frames from `start` on, (channels, mels, frames)."""
        first, last = start // _NOISE, (start + frames - 1) // _NOISE
        for number in [number for number in self.drawn if number < first]:
            del self.drawn[number]
        for number in range(first, last + 1):
            if number not in self.drawn:
                random = torch.Generator().manual_seed(number_from("song", self.seed, number))
                self.drawn[number] = torch.randn((self.channels, self.mels, _NOISE), generator=random)
        whole = torch.cat([self.drawn[number] for number in range(first, last + 1)], dim=2)
        return whole[..., start - first * _NOISE :][..., :frames]


def stem_power(
    generator: Generator,
    found: Iterator[Window],
    frames: int,
    data: Data,
    network: Network,
    seed: int,
    times: dict[str, float],
    guide: Guide | None = None,
) -> Iterator[np.ndarray]:
    """Yield the stem's mel power, in blocks (channels, mels, frames), given the windows of a song with `frames` frames.

    Overlapping windows are cross-faded in power.

    Args:
        times: the seconds spent in the generator are added to `network`. guide: of this song, for a generator with a sketch.

    Raises:
        ValueError: see `inference.outputs`.
    """
    fade = np.bartlett(data.frames + 2)[1:-1].astype(np.float32)
    total = np.zeros((data.picture_channels, data.mels, data.frames), np.float32)
    weight = np.zeros(data.frames, np.float32)
    noise = Noise(network.noise_channels, data.mels, seed) if network.noise_channels else None
    torch.manual_seed(number_from("song", seed))  # of the thesis's drop-out
    at = 0  # first frame of `total`
    for batch in _batches(found, inference.batch_size(generator)):
        begun = time.perf_counter()
        shown, starts = np.stack([window.picture for window in batch]), [window.start for window in batch]
        cut = None if noise is None else torch.stack([noise.cut(start, data.frames) for start in starts])
        outputs = inference.outputs(generator, shown, starts, data, cut, guide)
        times["network"] += time.perf_counter() - begun
        for window, output in zip(batch, outputs, strict=True):
            if done := window.start - at:
                yield total[..., :done] / np.maximum(weight[:done], 1e-9)
                total = np.concatenate([total[..., done:], np.zeros_like(total[..., :done])], axis=-1)
                weight = np.concatenate([weight[done:], np.zeros_like(weight[:done])])
                at = window.start
            power = pairs.silent_to_zero(output, window.reference)
            if data.representation == "thesis":  # its output is the mix: the stem is the increase over the input
                power = np.maximum(power - pairs.silent_to_zero(window.picture, window.reference), 0)
            total += fade * power
            weight += fade
    yield (total / np.maximum(weight, 1e-9))[..., : frames - at]


def _batches(found: Iterator[Window], size: int) -> Iterator[list[Window]]:
    batch: list[Window] = []
    for window in found:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

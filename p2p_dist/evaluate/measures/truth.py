"""The true stem of a song and the measured stem, each with the spectra that several measures share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.spectrogram import power_to_db
from p2p_dist.audio.stems import mono
from p2p_dist.data.pairs import mel_of
from p2p_dist.evaluate.measures import descriptors, onsets, spectral
from p2p_dist.settings.config import Data

RATE = onsets.RATE


@dataclass(frozen=True)
class TrueWindow:
    """The true stem in one counted window.

    begin: its first frame. rise: the onset envelope, (frames,). onsets: their frames. energy: sum of its mel power.
    grid: frames of the song's eighth notes, relative to `begin`; some are outside of the window.
    """

    begin: int
    rise: np.ndarray
    onsets: np.ndarray
    energy: float
    grid: np.ndarray


@dataclass(frozen=True)
class StemWindow:
    """The measured stem in the same window: mel power (64, frames), onset envelope (frames,), frames of its onsets."""

    power: np.ndarray
    rise: np.ndarray
    onsets: np.ndarray


class Truth:
    """The true stem and input of one song, prepared once for all stems that are measured.

    Args:
        true, heard: true stem and input, (samples, channels) at `rate`, of equal length.
        beats: of the true stem, in seconds from the start of the excerpt; None if there are none.
        data: settings of the network's spectrograms, for the measure of their artifacts.
        mixes: `true` and the measured files include the input. Then only measures of whole files are computed.
    """

    def __init__(
        self, true: np.ndarray, heard: np.ndarray, rate: int, beats: Beats | None, data: Data, *, mixes: bool = False
    ) -> None:
        self.rate, self.data, self.mixes, self.beats = rate, data, mixes, beats
        self.true, self.heard = mono(true, rate, RATE), mono(heard, rate, RATE)
        self.silent = not self.true.any()
        bins = spectral.power(self.true)
        self.stem_mel = spectral.log_mel(bins)
        mix = self.true if mixes else self.heard + self.true
        self.mix_mel, self.heard_mel = (spectral.log_mel(spectral.power(signal)) for signal in (mix, self.heard))
        self.magnitudes = spectral.magnitudes(self.true)
        self.chroma, self.audible = spectral.chroma(bins), spectral.audible(bins)
        self.picture = power_to_db(mel_of(true, rate, data))
        self.onset_times = onset_times(self.true)
        grid = np.rint((beats.times(len(self.true) / RATE, per_beat=2) if beats else np.empty(0)) / onsets.FRAME).astype(
            np.int64
        )
        counted = [] if mixes else list(counted_windows(self.true, self.heard))
        self.windows = [
            TrueWindow(begin, rise := onsets.envelope(power), onsets.peaks(rise), float(power.sum()), grid - begin)
            for begin, power in counted
        ]
        self.real = [descriptors.describe(power) for _, power in counted]

    def cut(self, power: np.ndarray) -> list[np.ndarray]:
        """The counted windows of a mel spectrogram (64, frames)."""
        return [power[:, window.begin : window.begin + len(window.rise)] for window in self.windows]


class Stem:
    """A measured stem, float32 (samples, channels) at the song's rate, as long as the true stem."""

    def __init__(self, sound: np.ndarray, truth: Truth) -> None:
        self.sound, self.truth = sound, truth
        self.signal = mono(sound, truth.rate, RATE)
        self.silent = not self.signal.any()

    @cached_property
    def bins(self) -> np.ndarray:
        """Its power spectrogram."""
        return spectral.power(self.signal)

    @cached_property
    def mel(self) -> np.ndarray:
        """Its log-mel spectrogram, dB."""
        return spectral.log_mel(self.bins)

    @cached_property
    def mix_mel(self) -> np.ndarray:
        """Log-mel spectrogram of the mix with the input, dB."""
        return self.mel if self.truth.mixes else spectral.log_mel(spectral.power(self.truth.heard + self.signal))

    @cached_property
    def multi_resolution(self) -> tuple[float, float]:
        """See `spectral.multi_resolution`."""
        return spectral.multi_resolution(spectral.magnitudes(self.signal), self.truth.magnitudes)

    @cached_property
    def chroma_likeness(self) -> tuple[float | None, float | None]:
        """See `spectral.chroma_likeness`."""
        return spectral.chroma_likeness(spectral.chroma(self.bins), self.truth.chroma, self.truth.audible)

    @cached_property
    def picture(self) -> np.ndarray:
        """Its spectrogram with the frames of the network's spectrograms, dB (mels, frames)."""
        return power_to_db(mel_of(self.sound, self.truth.rate, self.truth.data))

    @cached_property
    def windows(self) -> list[StemWindow]:
        """The counted windows."""
        powers = self.truth.cut(onsets.mel(self.signal))
        rises = [onsets.envelope(power) for power in powers]
        return [StemWindow(power, rise, onsets.peaks(rise)) for power, rise in zip(powers, rises, strict=True)]


def counted_windows(true: np.ndarray, heard: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the windows of a true stem that count: it is loud enough, the input is not silent, and there are at least 4 onsets.

    Args:
        true, heard: mono at 22 050 Hz.

    Yields:
        the window's first frame, and its mel power (64, frames).
    """
    power = onsets.mel(true)
    width = min(onsets.WINDOW, power.shape[1])
    for begin in range(0, power.shape[1] - width + 1, width):
        place = slice(begin * onsets.HOP, (begin + width) * onsets.HOP)
        window = power[:, begin : begin + width]
        loud = (true[place] ** 2).sum() > 0.02 * (heard[place] ** 2).sum() and np.abs(heard[place]).max() > 1e-3
        if loud and len(onsets.peaks(onsets.envelope(window))) >= 4:
            yield begin, window


def real_windows(true: np.ndarray, heard: np.ndarray, rate: int) -> np.ndarray:
    """Describe every counted window of a whole true stem, (windows, 41): its part of the set that stems are compared with.

    Args:
        true, heard: the true stem and the input, (samples, channels) at `rate`.
    """
    counted = counted_windows(mono(true, rate, RATE), mono(heard, rate, RATE))
    return np.array([descriptors.describe(power) for _, power in counted]).reshape(-1, descriptors.SIZE)


def onset_times(signal: np.ndarray) -> np.ndarray:
    """Return the times of the onsets in mono audio at 22 050 Hz, in seconds, see `onsets.peaks`."""
    return onsets.peaks(onsets.envelope(onsets.mel(signal))) * onsets.FRAME

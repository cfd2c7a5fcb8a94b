"""What a pattern network hears of a song: level and rises of its mel bands, and where in the bar each frame is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.spectrogram import mel_power_of_part
from p2p_dist.audio.stems import resample_blocks

RATE, N_FFT, HOP, MELS, LOWEST = 22050, 1024, 256, 64, 30.0
FRAME = HOP / RATE
"""Seconds of a frame: 11.6 ms. Frame k is centred on k * FRAME."""

_AT_ONCE = 64  # frames, as in audio/spectrogram.py
_TOGETHER = 2  # mel bands that are added to one
_BANDS = MELS // _TOGETHER
_PARTS = (slice(0, 3), slice(5, 20), slice(25, _BANDS))  # added bands: 30 to 385 Hz, 537 to 3141 Hz, from 5030 Hz
_LOWEST_DB, _HIGHEST_DB, _UNIT = -80.0, 10.0, 40.0  # of the level, from the song's loud frames
_OVER = 2  # frames over which a band rises
_NO_SOUND = 80.0  # dB under the loudest frame
_SILENT_DB, _SILENCE = -60.0, 2.0  # under the loud frames; least seconds of silence at an end of the song
BEATS = (1, 2, 4)
"""Periods of the phase channels, beats."""

SOUND = 2 * _BANDS + len(_PARTS)
"""Channels of the sound; the others are the phases."""

CHANNELS = SOUND + 2 * len(BEATS)


def pattern_features(song: np.ndarray | Iterable[np.ndarray], rate: int, beats: Beats | None) -> np.ndarray:
    """Return what is known of a song without drums.

    Args:
        song: mono float32 (samples,), or blocks of it. beats: None where they are unknown.

    Returns:
        float32 (CHANNELS, 1 + samples at RATE // HOP): levels of 32 mel bands relative to the song's loud frames, 1 is 40 dB;
        their rises over 23 ms, and those of a low, a middle and a high band; sine and cosine of the position in the beat, in
        two beats and in four beats, 0 where beats are unknown. Bars are assumed to begin with the first beat.
    """
    powers = list(mel_powers(song, rate))
    power = np.concatenate(powers, axis=1) if powers else np.zeros((_BANDS, 0), np.float32)
    floor = 1e-10 * min(1.0, max(float(power.max(initial=0)), 1e-20))  # of a very quiet song the same as of a loud one
    db = 10 * np.log10(np.maximum(power, floor))
    loud = _loud(db.max(axis=0)) if db.size else 0.0
    level = np.clip(db - loud, _LOWEST_DB, _HIGHEST_DB) / _UNIT + 1
    rise = np.zeros_like(level)
    rise[:, _OVER:] = np.maximum(level[:, _OVER:] - level[:, :-_OVER], 0)
    parts = np.stack([rise[part].mean(axis=0) for part in _PARTS])
    return np.concatenate([level, 2 * rise, 4 * parts, _phases(beats, level.shape[1])])


def _loud(levels: np.ndarray) -> float:
    """Return the level in dB that a tenth of a song's frames exceed; of a song that is mostly silent, almost that of its sound.

    Args:
        levels: of the frames, dB.
    """
    sounding = levels[levels > levels.max() - _NO_SOUND]
    return max(float(np.percentile(levels, 90)), float(np.percentile(sounding, 90)) - 1)  # rests change it by 1 dB at most


def silent_ends(features: np.ndarray) -> np.ndarray:
    """Return which frames are in a silence of two seconds or more before the first or after the last sound, (frames,).

    In a silence within the song the drums may well play alone.

    Args:
        features: of `pattern_features`.
    """
    silent = np.zeros(features.shape[1], bool)
    sounding = np.flatnonzero(features[:_BANDS].max(axis=0) > 1 + _SILENT_DB / _UNIT)
    least = round(_SILENCE / FRAME)
    if len(sounding):
        first, last = int(sounding[0]), int(sounding[-1]) + 1
        silent[: first if first >= least else 0] = True
        silent[last if len(silent) - last >= least else len(silent) :] = True
    return silent


def mel_powers(song: np.ndarray | Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Yield the mel power (32, frames) of a song, mono (samples,) or blocks of it, as its frames are complete."""
    blocks = [song] if isinstance(song, np.ndarray) else song
    held = np.zeros(N_FFT // 2, np.float32)
    resampled = resample_blocks((block[:, None] for block in blocks), rate, RATE)
    for block in itertools.chain(resampled, [np.zeros((N_FFT // 2, 1), np.float32)]):
        held = np.concatenate([held, block[:, 0]])
        while (frames := min((len(held) - N_FFT) // HOP + 1, _AT_ONCE)) > 0:
            power = mel_power_of_part(held[: (frames - 1) * HOP + N_FFT], RATE, N_FFT, HOP, MELS, LOWEST)
            held = held[frames * HOP :]
            yield power.reshape(_BANDS, _TOGETHER, -1).sum(axis=1)
        held = held.copy()


def _phases(beats: Beats | None, frames: int) -> np.ndarray:
    """Sine and cosine of the position in each of `BEATS`, float32 (2 * len(BEATS), frames)."""
    if beats is None:
        return np.zeros((2 * len(BEATS), frames), np.float32)
    position = beat_positions(beats, np.arange(frames) * FRAME)
    return np.concatenate([[np.sin(angle), np.cos(angle)] for angle in (2 * np.pi * position / n for n in BEATS)]).astype(
        np.float32
    )


def beat_positions(beats: Beats, times: np.ndarray) -> np.ndarray:
    """Convert times in seconds to beats since the first beat of the song."""
    at = beats.times(float(times.max(initial=0)) + 10)
    place = np.interp(times, at, np.arange(len(at)))
    before = times < at[0]
    place[before] = (times[before] - at[0]) / (at[1] - at[0])
    return place

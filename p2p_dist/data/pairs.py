"""Convert songs to pairs of spectrograms for training, and generated spectrograms back to power.

`default`: the target is the stem to make, and input and target of a whole song share one level reference that is taken
from the input, so it is known at generation time. Windows are cut from the spectrogram of the whole song; those of
training and of generation are identical.

`thesis`: the target is the whole mix, and every window of either is by itself: 255 hops of sound, its own spectrogram,
its own maximum as reference. Input and target lose their relative level; kept to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from p2p_dist.audio.spectrogram import db_to_power, frame_count, mel_power, power_to_db
from p2p_dist.audio.stems import mean_of, resample, side_of
from p2p_dist.settings.config import Data

FLOOR = -80.0
"""dB relative to the reference that count as silence and fill padding."""

CEILING = {"default": 25.0, "thesis": 0.0}
"""Largest dB relative to the reference in a spectrogram: a stem can be louder than the input."""

LOUDEST_SHARE = 0.999
"""Share of the bins of an input that lie under its reference, see `level_reference`."""

LOWEST_REFERENCE = 1e-3
"""Lowest reference power, so that noise beside a silent input is not scaled up."""

_BLOCK = 1 << 16  # samples added up at once


@dataclass(frozen=True)
class Pictures:
    """The windows of one song.

    inputs, targets: float16 (windows, channels, mels, frames), dB relative to the references, from FLOOR to CEILING.
    starts: (windows,) first frame of each window. references: (windows,) power that is 0 dB in the input.
    frames: frames of the whole song; the last window is padded with FLOOR where it reaches beyond.
    """

    inputs: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    references: np.ndarray
    frames: int


def window_starts(frames: int, data: Data) -> np.ndarray:
    """Return the first frames of a song's windows: every `data.window_hop`, the last one reaching to or over the end.

    The thesis dropped what is left after its last whole window, and so does its representation.
    """
    beyond = max(frames - data.frames, 0)
    further = beyond // data.window_hop if data.representation == "thesis" else -(-beyond // data.window_hop)
    return np.arange(1 + further) * data.window_hop


def level_reference(power: np.ndarray) -> float:
    """Return the power of 0 dB in a song's spectrograms: the 99.9 % quantile of the input's bins.

    It is close to the peak but robust against single clicks.
    """
    return max(float(np.quantile(power, LOUDEST_SHARE)), LOWEST_REFERENCE)


def mel_of(sound: np.ndarray, rate: int, data: Data, one_of: Callable[[np.ndarray], np.ndarray] = mean_of) -> np.ndarray:
    """Mel power of the mean, or another `one_of`, of the channels of sound (samples, channels): float32 (mels, frames)."""
    if rate != data.sample_rate:  # else block by block: of a long song the mean alone is 100 MB
        sound = resample(one_of(sound.T.astype(np.float32, copy=False)), rate, data.sample_rate)
    return mel_power(sound, data.sample_rate, data.n_fft, data.hop_length, data.mels, one_of=one_of)


def powers_of(sound: np.ndarray, rate: int, data: Data) -> np.ndarray:
    """Compute the mel power of mono or mid and side: float32 (channels, mels, frames).

    Of stereo as mid and side, the mean of both channels and half their difference; other sound has nothing at its sides.
    """
    mid = mel_of(sound, rate, data)
    if data.channels == "mono":
        return mid[None]
    if sound.shape[1] != 2:
        return np.stack([mid, np.zeros_like(mid)])
    return np.stack([mid, mel_of(sound, rate, data, side_of)])


def to_picture(power: np.ndarray, reference: float, representation: str) -> np.ndarray:
    """Convert power to dB relative to `reference`, clipped to FLOOR .. CEILING; float16 of the same shape.

    Nothing is FLOOR however quiet the song; in the thesis's pictures a window of nothing is its own maximum, 0 dB.
    """
    if representation == "default":
        power, reference = power / np.float32(reference), 1.0
    db = power_to_db(power, reference)
    return np.clip(db, FLOOR, CEILING[representation], out=db).astype(np.float16)


def make(song: np.ndarray, target: np.ndarray, rate: int, data: Data) -> Pictures:
    """Make all windows of one song.

    Args:
        song: what is heard, (samples, channels) at `rate`. target: the stem to make, likewise.
    """
    if data.representation == "thesis":
        return _thesis(song, target, rate, data)
    power = powers_of(song, rate, data)
    reference = level_reference(power[0])
    frames = power.shape[2]
    starts = window_starts(frames, data)
    inputs = _cut(to_picture(power, reference, "default"), starts, data.frames)
    del power  # of a long song it is large, and so is the target's
    targets = _cut(to_picture(powers_of(target, rate, data), reference, "default"), starts, data.frames)
    return Pictures(inputs, targets, starts, np.full(len(starts), reference), frames)


def _cut(picture: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Windows (windows, channels, mels, width) of a song's picture (channels, mels, frames), the last padded with FLOOR."""
    missing = int(starts[-1]) + width - picture.shape[2]
    padded = np.pad(picture, ((0, 0), (0, 0), (0, max(missing, 0))), constant_values=FLOOR)
    return np.stack([padded[:, :, start : start + width] for start in starts])


def silent_windows(pictures: Pictures, target: np.ndarray, rate: int, data: Data) -> np.ndarray:
    """Which windows have a silent target, bool (windows,): nothing over FLOOR, or, if spectrograms show the mix, no audio.

    Args:
        target: the stem to make, (samples, channels) at `rate`.
    """
    if data.representation == "default":
        # As whole numbers, which compare ten times as fast: a float16 of less than 0 has the larger one the lower it is.
        quiet = np.float16(FLOOR + 0.5).view(np.uint16)
        return np.asarray((pictures.targets.view(np.uint16) >= quiet).all(axis=(1, 2, 3)))
    ratio = data.hop_length * rate / data.sample_rate
    begins, width = pictures.starts * ratio, ratio * (data.frames - 1)
    # The mean is what the pictures show.
    parts = (mean_of(target[round(begin) : round(begin + width)].T) for begin in begins)
    return np.array([not part.size or np.abs(part).max() < 10 ** (FLOOR / 20) for part in parts])


def _thesis(song: np.ndarray, target: np.ndarray, rate: int, data: Data) -> Pictures:
    """The thesis's windows of 255 hops, which is 256 centred frames; a song shorter than one is padded with silence."""
    # Means first: the same bits from songs that are kept as means only; and one after another, since each is large.
    heard = resample(mean_of(song.T), rate, data.sample_rate)
    mix = np.empty(len(song), np.float32)
    for start in range(0, len(mix), _BLOCK):
        block = slice(start, start + _BLOCK)
        mix[block] = mean_of(song[block].T) + mean_of(target[block].T)
    mix = resample(mix, rate, data.sample_rate)
    frames = frame_count(len(heard), data.hop_length)
    samples = data.hop_length * (data.frames - 1)
    starts = window_starts(frames, data)
    inputs, targets, references = [], [], []
    for start in starts * data.hop_length:
        powers = []
        for signal in (heard, mix):
            part = signal[start : start + samples]
            part = np.pad(part, (0, samples - len(part)))
            powers.append(mel_power(part, data.sample_rate, data.n_fft, data.hop_length, data.mels))
        inputs.append(to_picture(powers[0], float(powers[0].max()), "thesis")[None])
        targets.append(to_picture(powers[1], float(powers[1].max()), "thesis")[None])
        references.append(float(powers[0].max()))
    return Pictures(np.stack(inputs), np.stack(targets), starts, np.array(references), frames)


def stitch(outputs: np.ndarray, pictures: Pictures, data: Data) -> np.ndarray:
    """Join generated windows to the stem's mel power over the whole song, cross-faded where windows overlap.

    The thesis's pictures show the mix at an unknown level; it is taken to be the input's, and what rises above the input
    is the stem.

    Args:
        outputs: dB, (windows, channels, mels, frames), one for each window of `pictures`.

    Returns:
        float32 (channels, mels, frames of the song).
    """
    fade = np.bartlett(data.frames + 2)[1:-1].astype(np.float32)
    end = max(int(pictures.starts[-1]) + data.frames, pictures.frames)
    total, weight = np.zeros((data.picture_channels, data.mels, end), np.float32), np.zeros(end, np.float32)
    for output, shown, start, reference in zip(outputs, pictures.inputs, pictures.starts, pictures.references, strict=True):
        power = silent_to_zero(output, reference)
        if data.representation == "thesis":
            power = np.maximum(power - silent_to_zero(shown, reference), 0)
        place = slice(int(start), int(start) + data.frames)
        total[..., place] += fade * power
        weight[place] += fade
    return (total / np.maximum(weight, 1e-9))[..., : pictures.frames]


def silent_to_zero(picture: np.ndarray, reference: float) -> np.ndarray:
    """Convert dB to power. Values at FLOOR become 0, not noise at -80 dB."""
    db = np.asarray(picture, np.float32)
    return np.where(db <= FLOOR + 0.5, np.float32(0), db_to_power(db, reference))

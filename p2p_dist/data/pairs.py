"""Convert songs to pairs of spectrograms for training, and generated spectrograms back to power.

`default`: the target is the target stem. Input and target of a whole song share one level reference, which is taken from the
input, so it is known at generation. Windows are cut from the spectrogram of the whole song, in training and generation alike.

`thesis`: the target is the whole mix. Every window of input and target has its own spectrogram of 255 hops of audio, with its
own maximum as reference, so the relative level of input and target is lost. Kept for comparison with the thesis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from p2p_dist.audio.mixer import mean_of, side_of
from p2p_dist.audio.spectrogram import db_to_power, frame_count, mel_power, power_to_db
from p2p_dist.audio.stems import resample
from p2p_dist.settings.config import Data

FLOOR = -80.0
"""Silence, in dB relative to the reference. Padding has this value."""

CEILING = {"default": 25.0, "thesis": 0.0}
"""Largest value in a spectrogram, in dB relative to the reference: a stem can be louder than the input."""

LOUDEST_SHARE = 0.999
"""Share of the bins of an input that are below its reference, see `level_reference`."""

LOWEST_REFERENCE = 1e-3
"""Lowest reference power, so that the target of a silent input is not scaled up to noise."""

_BLOCK = 1 << 16  # samples added at once


@dataclass(frozen=True)
class Pictures:
    """The windows of one song.

    inputs, targets: float16 (windows, channels, mels, frames), dB relative to the references, from FLOOR to CEILING.
    starts: (windows,) first frame of each window. references: (windows,) power of 0 dB in the input.
    frames: number of frames of the whole song; the last window is padded with FLOOR after its end.
    """

    inputs: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    references: np.ndarray
    frames: int


def window_starts(frames: int, data: Data) -> np.ndarray:
    """Return the first frames of a song's windows: every `data.window_hop`, until a window reaches the end of the song.

    As in the thesis, its representation drops the frames after the last whole window.
    """
    beyond = max(frames - data.frames, 0)
    further = beyond // data.window_hop if data.representation == "thesis" else -(-beyond // data.window_hop)
    return np.arange(1 + further) * data.window_hop


def level_reference(power: np.ndarray) -> float:
    """Return the power of 0 dB in a song's spectrograms: the 99.9 % quantile of the input's bins.

    It is close to the peak but not affected by single clicks.
    """
    return max(float(np.quantile(power, LOUDEST_SHARE)), LOWEST_REFERENCE)


def mel_of(sound: np.ndarray, rate: int, data: Data, one_of: Callable[[np.ndarray], np.ndarray] = mean_of) -> np.ndarray:
    """Compute the mel power of the mean, or another `one_of`, of the channels of sound (samples, channels).

    Returns:
        float32 (mels, frames)
    """
    if rate != data.sample_rate:  # else block by block, because the mean of a long song takes 100 MB
        sound = resample(one_of(sound.T.astype(np.float32, copy=False)), rate, data.sample_rate)
    return mel_power(sound, data.sample_rate, data.n_fft, data.hop_length, data.mels, one_of=one_of)


def powers_of(sound: np.ndarray, rate: int, data: Data) -> np.ndarray:
    """Compute the mel power: float32 (channels, mels, frames).

    With `data.channels` mono this is the mean of the channels; else mid and side, the mean of both channels and half their
    difference. The side of audio that is not stereo is silent.
    """
    mid = mel_of(sound, rate, data)
    if data.channels == "mono":
        return mid[None]
    if sound.shape[1] != 2:
        return np.stack([mid, np.zeros_like(mid)])
    return np.stack([mid, mel_of(sound, rate, data, side_of)])


def to_picture(power: np.ndarray, reference: float, representation: str) -> np.ndarray:
    """Convert power to dB relative to `reference`, clipped to FLOOR .. CEILING; float16 of the same shape.

    Zero power becomes FLOOR even in a quiet song. In the thesis's representation a silent window is 0 dB, its own maximum.
    """
    if representation == "default":
        power, reference = power / np.float32(reference), 1.0
    db = power_to_db(power, reference)
    return np.clip(db, FLOOR, CEILING[representation], out=db).astype(np.float16)


def make(song: np.ndarray, target: np.ndarray, rate: int, data: Data) -> Pictures:
    """Make all windows of one song.

    Args:
        song: the input, (samples, channels) at `rate`. target: the target stem, likewise.
    """
    if data.representation == "thesis":
        return _thesis(song, target, rate, data)
    power = powers_of(song, rate, data)
    reference = level_reference(power[0])
    frames = power.shape[2]
    starts = window_starts(frames, data)
    inputs = _cut(to_picture(power, reference, "default"), starts, data.frames)
    del power  # large for a long song, as is the target's
    targets = _cut(to_picture(powers_of(target, rate, data), reference, "default"), starts, data.frames)
    return Pictures(inputs, targets, starts, np.full(len(starts), reference), frames)


def _cut(picture: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Cut a song's spectrogram (channels, mels, frames) to windows (windows, channels, mels, width), the last padded."""
    missing = int(starts[-1]) + width - picture.shape[2]
    padded = np.pad(picture, ((0, 0), (0, 0), (0, max(missing, 0))), constant_values=FLOOR)
    return np.stack([padded[:, :, start : start + width] for start in starts])


def silent_windows(pictures: Pictures, target: np.ndarray, rate: int, data: Data) -> np.ndarray:
    """Find the windows with a silent target, bool (windows,).

    `default`: no value over FLOOR. `thesis`, whose spectrograms are of the mix: the target stem itself is silent.

    Args:
        target: the target stem, (samples, channels) at `rate`.
    """
    if data.representation == "default":
        # The bits of a negative float16 grow as its value falls. Integers compare ten times as fast.
        quiet = np.float16(FLOOR + 0.5).view(np.uint16)
        return np.asarray((pictures.targets.view(np.uint16) >= quiet).all(axis=(1, 2, 3)))
    ratio = data.hop_length * rate / data.sample_rate
    begins, width = pictures.starts * ratio, ratio * (data.frames - 1)
    # The spectrograms are of the mean of the channels.
    parts = (mean_of(target[round(begin) : round(begin + width)].T) for begin in begins)
    return np.array([not part.size or np.abs(part).max() < 10 ** (FLOOR / 20) for part in parts])


def _thesis(song: np.ndarray, target: np.ndarray, rate: int, data: Data) -> Pictures:
    """Make the thesis's windows of 255 hops, or 256 centred frames; a shorter song is padded with silence."""
    # The mean first, so that songs decoded to mono give the same bits. One after another, because each is large.
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
    """Join generated windows to the stem's mel power over the whole song, with a cross-fade where windows overlap.

    The thesis's spectrograms are of the mix at an unknown level. Its level is assumed to be that of the input, and the stem is
    the output minus the input, where positive.

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
    """Convert dB to power. Values at FLOOR become 0 instead of noise at -80 dB."""
    db = np.asarray(picture, np.float32)
    return np.where(db <= FLOOR + 0.5, np.float32(0), db_to_power(db, reference))

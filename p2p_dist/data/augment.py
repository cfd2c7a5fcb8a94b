"""Augment training windows.

Equaliser, choice of channel and tempo change input and target alike. Level and drop-out change single input stems. Input and
target always come from the same song, because their relation is what the network learns.
"""

from __future__ import annotations

import hashlib

import numpy as np

from p2p_dist.data import pairs
from p2p_dist.settings.config import Data, parse_task

GAIN = 6.0
"""Largest change of an input stem's level, dB."""
DROP = 0.15
"""Probability that an input stem is silenced; at least one is kept."""
EQ = 6.0
"""Largest gain of the shelving filters below 200 Hz and above 4 kHz, dB."""
STRETCH = 0.08
"""Largest relative change of tempo; the pitch does not change."""


def random_for(*names: object) -> np.random.Generator:
    """Return a random generator that depends only on these names, not on process or order."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def reach(data: Data) -> int:
    """Return the number of samples at `data.sample_rate` that a copy of a window needs, from `data.n_fft` before the window."""
    return int(_length(data) * (1 + STRETCH)) + 4 * data.n_fft


def _length(data: Data) -> int:
    return data.hop_length * (data.frames - 1) + 2 * data.n_fft


def copy_of(
    stems: dict[str, np.ndarray], start: int, reference: float, data: Data, song: str, window: int, copy: int, skipped: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Make one augmented copy of one window.

    Args:
        stems: the song's stems, each float32 (samples, channels) at `data.sample_rate`, without the first `skipped` samples.
        start: first frame of the window. reference: the song's level, power.
        song, window, copy: these and `data.seed` seed the random generator.
        skipped: samples missing at the beginning of `stems`.

    Returns:
        input and target, float16 (channels, mels, frames) in dB as in `pairs.Pictures`.
    """
    import scipy.signal  # takes 0.25 s to import, needed only for copies

    random = random_for("copy", data.seed, song, window, copy)
    heard, made = parse_task(data.task)
    length = _length(data)
    tempo = 1 + random.uniform(-STRETCH, STRETCH)
    begin = start * data.hop_length - data.n_fft - skipped
    taken = {name: _take(stems[name], begin, int(length * tempo) + 4 * data.n_fft) for name in (*heard, *made)}
    gains = {name: 10 ** (random.uniform(-GAIN, GAIN) / 20) * (random.random() >= DROP) for name in heard}
    if not any(gains.values()):
        gains[heard[int(random.integers(len(heard)))]] = 1.0
    loud = [np.float32(gains[name]) * taken[name] for name in heard]
    sounds = [np.sum(part, axis=0) for part in (loud, [taken[name] for name in made])]
    side = int(random.integers(3)) if data.channels == "mono" else 2  # left, right or both
    if side < sounds[0].shape[1]:
        sounds = [sound[:, side : side + 1] for sound in sounds]
    filters = [_shelf(kind, hz, random.uniform(-EQ, EQ), data.sample_rate) for kind, hz in (("low", 200.0), ("high", 4000.0))]
    for sos in filters:
        sounds = [scipy.signal.sosfilt(sos, sound, axis=0) for sound in sounds]
    both = stretch(np.concatenate(sounds, axis=1).astype(np.float32), tempo, length)
    channels = sounds[0].shape[1]
    pictures = []
    skip = data.n_fft // data.hop_length  # frames of the margin before the window
    for sound in (both[:, :channels], both[:, channels:]):
        powers = pairs.powers_of(sound, data.sample_rate, data)[..., skip : skip + data.frames]
        pictures.append(pairs.to_picture(powers, reference, "default"))
    return pictures[0], pictures[1]


def _take(sound: np.ndarray, begin: int, length: int) -> np.ndarray:
    """Return `length` samples from `begin`, padded with silence outside the song."""
    part = sound[max(begin, 0) : max(begin + length, 0)]
    before = max(-begin, 0)
    return np.pad(part, ((before, length - before - len(part)), (0, 0)))


def _shelf(kind: str, frequency: float, gain: float, rate: int) -> np.ndarray:
    """Return a shelving filter as second-order section (Robert Bristow-Johnson's cookbook, slope 1)."""
    a, w = 10 ** (gain / 40), 2 * np.pi * frequency / rate
    cos, alpha, sign = np.cos(w), np.sin(w) / np.sqrt(2), 1 if kind == "low" else -1
    root = 2 * np.sqrt(a) * alpha
    b = [a * (a + 1 - sign * (a - 1) * cos + root), sign * 2 * a * (a - 1 - sign * (a + 1) * cos)]
    b.append(a * (a + 1 - sign * (a - 1) * cos - root))
    d = [a + 1 + sign * (a - 1) * cos + root, -sign * 2 * (a - 1 + sign * (a + 1) * cos)]
    d.append(a + 1 + sign * (a - 1) * cos - root)
    return np.array([[*b, *d]]) / d[0]


def stretch(sound: np.ndarray, tempo: float, length: int, frame: int = 2048) -> np.ndarray:
    """Change the tempo of `sound` (samples, channels) by the factor `tempo`, keep the pitch; return `length` samples.

    WSOLA (Verhelst and Roelands 1993). All channels are cut at the same samples, so the stretched stems still add up to the
    stretched mix.
    """
    hop, reach = frame // 2, frame // 4
    window = np.hanning(frame + 1)[:-1].astype(np.float32)[:, None]
    needed = frame + reach + int((length + frame) * max(tempo, 1))
    sound = np.pad(sound, ((0, max(0, needed + frame - len(sound))), (0, 0)))
    guide = sound.sum(axis=1)
    out = np.zeros((length + 2 * frame, sound.shape[1]), np.float32)
    place = 0
    for start in range(0, length + hop, hop):
        if start:
            ideal, wanted = int(start * tempo), guide[place + hop : place + hop + frame]
            low = max(ideal - reach, 0)
            likeness = np.correlate(guide[low : ideal + reach + frame], wanted, "valid")
            place = low + int(likeness.argmax())
        piece = sound[place : place + frame]
        # The first half window has no predecessor to cross-fade with.
        out[start : start + frame] += piece * (window if start else np.where(np.arange(frame)[:, None] < hop, 1, window))
    return out[:length]

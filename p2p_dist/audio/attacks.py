"""Find the attacks in a song: its onset envelope, of audio that comes in blocks, and the times of its peaks.

FINE has frames of 5.8 ms and a window of 23 ms: with a longer one, an attack out of silence is seen several ms earlier than one
in dense music, so that the phase of a beat would depend on the arrangement. COARSE resolves pitch better, for the tempo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from p2p_dist.audio.spectrogram import mel_power_of_part

RATE, LOWEST = 22050, 30.0


@dataclass(frozen=True)
class Transform:
    """n_fft, hop: samples at `RATE`."""

    n_fft: int
    hop: int
    mels: int

    @property
    def frame(self) -> float:
        """Seconds of a frame."""
        return self.hop / RATE


FINE, COARSE = Transform(512, 128, 40), Transform(1024, 512, 64)

_FLOOR = 8e-8
"""Power a sample of `n_fft` under which nothing counts, full scale 1 in the song's loudest sample: some 60 dB under what the
loudest bands have."""
_AT_ONCE = 64  # frames, as in audio/spectrogram.py
_SMOOTH, _SPACE = 0.004, 0.03  # seconds: smoothing of the envelope, and from one attack to the next


class Rises:
    """The onset envelope of audio that arrives in blocks: mean over mels of the rise in dB. It keeps 4 bytes a frame.

    Args:
        peak: the largest absolute sample of the song.
    """

    def __init__(self, peak: float, transform: Transform) -> None:
        self.transform = transform
        self.floor = np.float32(_FLOOR * transform.n_fft * max(peak, 1e-3) ** 2)
        self.held = np.zeros(transform.n_fft // 2, np.float32)
        self.before: np.ndarray | None = None
        self.parts: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, float32 (samples,) at `RATE`."""
        n_fft, hop = self.transform.n_fft, self.transform.hop
        self.held = np.concatenate([self.held, block])
        while (frames := min((len(self.held) - n_fft) // hop + 1, _AT_ONCE)) > 0:
            part = self.held[: (frames - 1) * hop + n_fft]
            power = mel_power_of_part(part, RATE, n_fft, hop, self.transform.mels, LOWEST)
            self.held = self.held[frames * hop :]
            db = 10 * np.log10(np.maximum(power, self.floor))
            first = db[:, :1] if self.before is None else self.before
            self.parts.append(np.maximum(np.diff(db, axis=1, prepend=first), 0).mean(axis=0))
            self.before = db[:, -1:].copy()
        self.held = self.held.copy()

    def finish(self) -> None:
        """Process the end of the audio; call it after the last `add`."""
        self.add(np.zeros(self.transform.n_fft // 2, np.float32))

    def envelope(self) -> np.ndarray:
        """Return (frames,), in dB per frame. Frame k is the rise from the frame centred at k - 1 to that at k."""
        return np.concatenate(self.parts) if self.parts else np.empty(0, np.float32)


def attack_times(rise: np.ndarray, frame: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the attacks in an onset envelope.

    Args:
        rise: (frames,). frame: seconds per frame.

    Returns:
        Times in seconds, with fractions of a frame, and strengths; each (attacks,).
    """
    if not len(rise):
        return np.empty(0), np.empty(0)
    smooth = scipy.ndimage.gaussian_filter1d(rise.astype(np.float64), max(_SMOOTH / frame, 0.4))
    highest = scipy.ndimage.maximum_filter1d(smooth, 2 * max(round(_SPACE / frame), 1) + 1)
    at = np.flatnonzero((smooth == highest) & (smooth > smooth.mean() + 0.5 * smooth.std()))
    at = at[(at > 0) & (at < len(smooth) - 1)]
    before, here, after = smooth[at - 1], smooth[at], smooth[at + 1]
    top = 0.5 * (before - after) / np.minimum(before - 2 * here + after, -1e-12)  # of the parabola through three frames
    return (at - 0.5 + top) * frame, here - smooth.mean()

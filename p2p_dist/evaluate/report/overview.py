"""Draw an overview of audio: the peaks of its waveform, and its spectrogram with a logarithmic frequency axis.

It works block by block, so a long song needs no more memory than a short one.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import av
import numpy as np

_ROWS = 128
_LOW, _HIGH = 40.0, 16000.0  # Hz
_FRAME = 2048  # samples of one spectrum, at rates near 44.1 kHz
_COLUMNS_PER_SECOND, _MOST_COLUMNS = 50, 1500
_FLOOR = -100.0  # dB below a sine of full scale: black
_LEVELS = 36  # grey levels: steps of 2.8 dB, which are not visible and compress well


class Overview:
    """Takes the blocks of audio in order; `finish` returns what the page draws."""

    def __init__(self, rate: int, samples: int) -> None:
        self._frame = max(64, 2 ** round(math.log2(_FRAME * rate / 44100)))
        self._columns = max(1, min(round(samples / rate * _COLUMNS_PER_SECOND), _MOST_COLUMNS))
        self._samples, self._done = samples, 0
        self._window = np.hanning(self._frame).astype(np.float32)
        self.high = min(_HIGH, rate / 2)
        self._bands = _log_bands(rate, self._frame, self.high)
        self._apart = min(self._frame // 2, max(1, samples // self._columns))
        # The first frame is centred on the first sample.
        self._left, self._next_frame = np.zeros(self._frame // 2, np.float32), 0
        self._power, self._frames = np.zeros((self._columns, _ROWS)), np.zeros(self._columns)
        self._peaks = np.zeros((self._columns, 2), np.float32)

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, float32 (samples, channels)."""
        if not len(block):
            return
        columns = (self._done + np.arange(len(block))) * self._columns // self._samples
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        np.minimum.at(self._peaks[:, 0], columns[starts], np.minimum.reduceat(block.min(axis=1), starts))
        np.maximum.at(self._peaks[:, 1], columns[starts], np.maximum.reduceat(block.max(axis=1), starts))
        self._done += len(block)
        self._transform(block.mean(axis=1, dtype=np.float32))

    def finish(self) -> dict[str, Any]:
        """Return peaks as bytes (columns, 2), -127 to 127, the spectrogram as a grey PNG, both in base64, and its axes."""
        self._transform(np.zeros(self._frame, np.float32))
        known = np.flatnonzero(self._frames)  # a column without a frame is drawn like its neighbour
        nearest = known[np.abs(known[:, None] - np.arange(self._columns)).argmin(axis=0)]
        power = self._power[nearest] / self._frames[nearest, None]
        db = 10 * np.log10(power + 10 ** (_FLOOR / 10))
        grey = np.round(np.clip(1 - db / _FLOOR, 0, 1) * (_LEVELS - 1)) * (255 / (_LEVELS - 1))
        peaks = np.round(np.clip(self._peaks, -1, 1) * 127).astype(np.int8)
        return {
            "peaks": base64.b64encode(peaks.tobytes()).decode(),
            "picture": base64.b64encode(_png(grey.T[::-1].astype(np.uint8))).decode(),
            "low": _LOW,
            "high": self.high,
            "floor": _FLOOR,
        }

    def _transform(self, sound: np.ndarray) -> None:
        sound = np.concatenate([self._left, sound])
        count = max(0, (len(sound) - self._frame) // self._apart + 1)
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(sound, self._frame)[: count * self._apart : self._apart]
            middles = (self._next_frame + np.arange(count)) * self._apart
            columns = np.minimum(middles * self._columns // self._samples, self._columns - 1)
            for start in range(0, count, 256):  # a few MB at a time
                part = slice(start, start + 256)
                power = np.abs(np.fft.rfft(frames[part] * self._window, axis=1)) ** 2
                power *= (2 / self._window.sum()) ** 2  # a sine of full scale is 1
                np.add.at(self._power, columns[part], power @ self._bands)
                np.add.at(self._frames, columns[part], 1)
        self._left, self._next_frame = sound[count * self._apart :], self._next_frame + count


def _log_bands(rate: int, frame: int, high: float) -> np.ndarray:
    """Return weights (bins, rows) that average the bins of each row; rows narrower than a bin are interpolated."""
    bins = np.arange(frame // 2 + 1) * rate / frame
    middles = np.geomspace(_LOW, high, _ROWS)
    ratio = middles[1] / middles[0]
    half = np.maximum(middles * (ratio - 1), rate / frame)  # at least the distance between two bins
    weights = np.clip(1 - np.abs(bins[:, None] - middles) / half, 0, None)
    return weights / weights.sum(axis=0)


def _png(grey: np.ndarray) -> bytes:
    """Encode an image, uint8 (rows, columns)."""
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = grey.shape
    encoder.pix_fmt, encoder.time_base = "gray", 1
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])

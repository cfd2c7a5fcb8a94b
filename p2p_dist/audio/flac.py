"""Read and write FLAC files whose tags record the excerpt of the song and the gain.

BEGIN_SAMPLE    position of the file's first sample in the song, in samples at the file's rate
BEGIN_SECONDS   the same in seconds
GAIN            the factor by which the song's samples were multiplied
GAIN_DB         the same in dB

The layout of the blocks, and of a comment in them, is that of RFC 9639, 8.1 and 8.6.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import soundfile

from p2p_dist.audio.sound_file import errors_of
from p2p_dist.common import files

_COMMENTS = 4  # the type of the block that holds tags
_LAST = 0x80
_BITS = {16: "PCM_16", 24: "PCM_24"}


def quieter(peak: float, room: float = 0.0) -> float:
    """Return the gain in dB, at most 0, in tenths, at which a peak fits below full scale with `room` dB to spare."""
    return 0.0 if peak <= 1 else -math.ceil(10 * (20 * math.log10(peak) + room)) / 10


def factor(decibels: float) -> float:
    """Convert a gain in dB to a factor."""
    return float(10 ** (decibels / 20))


def write(path: Path, sound: np.ndarray, rate: int, bits: int, begins: int, gain: float | None) -> None:
    """Write sound (samples, channels) scaled by a gain.

    Args:
        bits: of a sample, 16 or 24. begins: samples of the song before it. gain: dB; None where it is not known and the
            sound is written as it is. What is beyond 1 even so is clipped (by libsndfile).
    """
    tags = {"BEGIN_SAMPLE": str(begins), "BEGIN_SECONDS": f"{begins / rate:.6f}"}
    if gain is not None:
        tags |= {"GAIN": f"{factor(gain):.9g}", "GAIN_DB": f"{gain:.9g}"}
    scaled = sound * np.float32(1.0 if gain is None else factor(gain))
    with files.replacing(path) as temporary:
        with errors_of(temporary, at_end=True):
            soundfile.write(temporary, scaled, rate, format="FLAC", subtype=_BITS[bits])
        temporary.write_bytes(with_tags(temporary.read_bytes(), tags))


def with_tags(flac: bytes, tags: dict[str, str]) -> bytes:
    """Replace the tags in the bytes of a FLAC file."""
    blocks, at, last = [], 4, 0
    while not last:
        end = at + 4 + int.from_bytes(flac[at + 1 : at + 4])
        last = flac[at] & _LAST
        if flac[at] & ~_LAST != _COMMENTS:
            blocks.append(bytes([flac[at] & ~_LAST]) + flac[at + 1 : end])
        at = end
    lines = [f"{name}={value}".encode() for name, value in tags.items()]
    parts = [b"p2p_dist", struct.pack("<I", len(lines)), *lines]
    body = b"".join(part if at == 1 else struct.pack("<I", len(part)) + part for at, part in enumerate(parts))
    blocks.append(bytes([_COMMENTS | _LAST]) + len(body).to_bytes(3) + body)
    return b"fLaC" + b"".join(blocks) + flac[at:]

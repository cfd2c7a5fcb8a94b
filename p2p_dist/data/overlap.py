"""Find held-out songs that are also in the training set, by their audio and not by their titles."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

_RATE = 25
"""Values of a fingerprint per second; each is the sum of that much audio, so only low frequencies remain."""

_LIKENESS = 0.95
"""Correlation from which two songs have the same audio: lossy copies are above it, different songs far below."""

_AT_ONCE = 1000


def fingerprint(sounds: Sequence[np.ndarray], rate: int) -> str:
    """Return a fingerprint of a song's audio that does not depend on the file format.

    Args:
        sounds: (samples, channels) each, all of the same length; their sum counts. rate: sample rate, Hz.

    Returns:
        base64 of int8, `_RATE` values per second.
    """
    block = max(rate // _RATE, 1)
    values = np.zeros(len(sounds[0]) // block)
    for sound in sounds:
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            part += sound[start * block : (start + len(part)) * block].mean(axis=1).reshape(len(part), block).sum(axis=1)
    values -= values.mean() if len(values) else 0
    most = np.abs(values).max(initial=0)
    return base64.b64encode(np.rint(values * (127 / most if most else 0)).astype(np.int8).tobytes()).decode()


def training_songs(records: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Map split and key of each held-out song -> titles of the training songs with the same audio.

    Args:
        records: the records of finished songs. Records of version 0.1 have no fingerprint and are skipped.
    """
    trained: dict[int, list[tuple[str, np.ndarray]]] = {}
    others = []
    for record in records:
        if (values := _values(record.get("fingerprint"))) is None:
            continue
        if record["split"] == "train":
            trained.setdefault(len(values), []).append((record["song"], values))
        else:
            others.append(((record["split"], record["key"]), values))
    found = {}
    for key, values in others:
        near = [one for length in (-1, 0, 1) for one in trained.get(len(values) + length, [])]
        if titles := sorted({title for title, of in near if _is_alike(values, of)}):
            found[key] = titles
    return found


def _values(text: str | None) -> np.ndarray | None:
    """Decode a fingerprint; None if it is shorter than a second or silent."""
    try:
        values = np.frombuffer(base64.b64decode(text or "", validate=True), np.int8).astype(np.float64)
    except (ValueError, binascii.Error):
        return None
    return values if len(values) >= _RATE and values.any() else None


def _is_alike(one: np.ndarray, other: np.ndarray) -> bool:
    length = min(len(one), len(other))
    one, other = one[:length], other[:length]
    return bool(one @ other >= _LIKENESS * np.linalg.norm(one) * np.linalg.norm(other) > 0)

"""Measure how well a pattern network predicts songs that it was not trained on, for each class of drum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p_dist.audio import drum_classes
from p2p_dist.audio.drum_classes import CLASSES
from p2p_dist.audio.pattern_features import FRAME
from p2p_dist.model.pattern import Pattern, predict

if TYPE_CHECKING:
    from p2p_dist.generate.pattern_stage import Known


def measure(network: Pattern, songs: Iterable[tuple[str, Known]]) -> dict[str, Any]:
    """Correlate the activations that a network predicts for songs with the true ones, over time.

    Args:
        songs: title and what is known of each song, read one at a time.

    Returns:
        songs: titles of those that have drums. true, heard: class -> correlation, with the beats of the drums and with those
        that are detected in the input; the mean over the songs in which the class plays, None if it plays in none. `all` is
        the sum of the classes. Empty if no song has drums.
    """
    titles: list[str] = []
    found: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in (*CLASSES, "all")} for name in ("true", "heard")}
    for title, known in songs:
        if not known.onsets:
            continue
        titles.append(title)
        for name, by_class in found.items():
            features = getattr(known, name).features
            curves = predict(network, features)[:-1], drum_classes.activations(known.onsets, features.shape[1], FRAME)[:-1]
            predicted, true = (np.concatenate([part, part.sum(axis=0, keepdims=True)]) for part in curves)
            for kind, a, b in zip(by_class, predicted, true, strict=True):
                if b.any():
                    by_class[kind].append(float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 else 0.0)
    if not titles:
        return {}
    means = {
        name: {kind: float(np.mean(values)) if values else None for kind, values in by_class.items()}
        for name, by_class in found.items()
    }
    return {"songs": titles, **means}


def in_words(measured: dict[str, Any]) -> str:
    """Describe the result of `measure` in one line."""
    heard = [f"{kind} {value:.2f}" for kind, value in measured["heard"].items() if value is not None]
    count = len(measured["songs"])
    return (
        f"pattern network on {count} validation {'song' if count == 1 else 'songs'}: correlation with the true strokes "
        f"{', '.join(heard)}; with the beats of the drums {measured['true']['all']:.2f}"
    )

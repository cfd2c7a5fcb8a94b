"""Measure a trained pattern network on songs that it was not trained on, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p_dist.audio import drum_classes
from p2p_dist.audio.drum_classes import CLASSES
from p2p_dist.audio.pattern_features import FRAME
from p2p_dist.model.pattern import Pattern, predict

if TYPE_CHECKING:
    from p2p_dist.generate.pattern_stage import Known


def measure(network: Pattern, songs: Mapping[str, Known]) -> dict[str, Any]:
    """Measure the activations that a network predicts of songs that it was not trained on, with the beats of their drums, and
    with those that are heard in their inputs.

    Args:
        songs: title -> what is known of the song.

    Returns:
        songs: titles of those that have drums; true, heard: class -> correlation over time of predicted and true activations,
        the mean over the songs in which the class plays, None if it plays in none. `all` is the sum of the classes.
        Empty if no song has drums.
    """
    known = {title: one for title, one in songs.items() if one.onsets}
    found: dict[str, Any] = {"songs": list(known)}
    for name in ("true", "heard"):
        by_class: dict[str, list[float]] = {kind: [] for kind in (*CLASSES, "all")}
        for one in known.values():
            features = getattr(one, name).features
            curves = predict(network, features)[:-1], drum_classes.activations(one.onsets, features.shape[1], FRAME)[:-1]
            predicted, true = (np.concatenate([part, part.sum(axis=0, keepdims=True)]) for part in curves)
            for kind, a, b in zip(by_class, predicted, true, strict=True):
                if b.any():
                    by_class[kind].append(float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 else 0.0)
        found[name] = {kind: float(np.mean(values)) if values else None for kind, values in by_class.items()}
    return found if known else {}


def in_words(measured: dict[str, Any]) -> str:
    """Say what `measure` found, in a line."""
    heard = [f"{kind} {value:.2f}" for kind, value in measured["heard"].items() if value is not None]
    count = len(measured["songs"])
    return (
        f"pattern network on {count} validation {'song' if count == 1 else 'songs'}: correlation with the true strokes "
        f"{', '.join(heard)}; with the beats of the drums {measured['true']['all']:.2f}"
    )

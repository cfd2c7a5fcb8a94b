"""A drummer that heard nothing yet, with strokes that are easy to tell, and songs for it."""

from __future__ import annotations

import numpy as np
import torch

from p2p_dist.audio import strokes
from p2p_dist.audio.drum_classes import CLASSES
from p2p_dist.generate.drummer import Drummer
from p2p_dist.model.pattern import Pattern
from p2p_dist.settings.config import Data, Model

RATE = 22050


def bank(kits: int = 2) -> strokes.Bank:
    """Kits of one stroke a class: a tone that fades, another for each class and kit."""
    time = np.arange(round(0.2 * strokes.RATE)) / strokes.RATE
    found = {}
    for kit in range(kits):
        tones = {kind: 100.0 * 3**number * (1 + 0.1 * kit) for number, kind in enumerate(CLASSES)}
        made = {
            kind: [strokes.Stroke((np.exp(-20 * time) * np.sin(2 * np.pi * tone * time)).astype(np.float32), 1.0)]
            for kind, tone in tones.items()
        }
        found[f"kit-{kit}"] = strokes.Kit(made, (2.0, 1.0, 4.0, 0.5, 6.0), -3.0)
    return strokes.Bank(found)


def drummer(data: Data, model: Model) -> Drummer:
    torch.manual_seed(4)
    network = Pattern()
    with torch.no_grad():
        network.last.bias[-1] = -5.0  # it does not rest
    return Drummer(network.eval(), bank(), data, model)


def chords(seconds: float, bpm: float = 120.0) -> np.ndarray:
    """A song of chords, one a beat, the first at 0.1 s; float32 (samples,) at RATE."""
    time = np.arange(round(seconds * RATE)) / RATE
    place = (time - 0.1) % (60 / bpm)
    tones = sum(np.sin(2 * np.pi * tone * time) for tone in (220, 330, 415, 1200))
    return (0.1 * np.exp(-6 * place) * tones * (time >= 0.1)).astype(np.float32)

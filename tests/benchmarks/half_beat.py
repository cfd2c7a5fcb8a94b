"""Is a beat told from the half beat after it, in songs without their drums, and do composed songs help?

python tests/benchmarks/half_beat.py --songs EVR --songs PRACTICE --composed COMPOSED

The tempo and the eighth notes are known here: of composed songs (launch/compose.py) from their record, of others from their
drums. A judge is a logistic regression on how beats differ from half beats: rises in parts of the spectrum, and how much the
spectrum changes there. Songs of one source (the first word of their name) are judged by a judge that learnt from the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scipy.optimize

from p2p_dist.audio import layouts, stems
from p2p_dist.audio.beats import Beats
from p2p_dist.audio.layouts import Source
from p2p_dist.audio.pattern_features import SOUND, pattern_features
from p2p_dist.common import console, records, schemas
from p2p_dist.evaluate.held_out_songs import beats_of
from p2p_dist.model.pattern import GRID, on_grid, positions_of

BANDS = (slice(0, 3), slice(3, 10), slice(10, 20), slice(20, 32))
"""Of the rises of the mel bands, which are averaged."""

LENGTHS = (1, 2)
"""Beats before and after a place, between which the change of the spectrum is measured."""

STRETCH = 16
"""Beats of which the differences are averaged: one example."""

PENALTY = 1.0  # of the squared weights; each song counts as one example
LEVELS = 32  # rows of the levels in the features, before those of the rises
ENVELOPE = "envelope alone"


def differences(source: Source) -> np.ndarray | None:
    """How the beats of a song differ from its half beats, (stretches, features); None without beats or a whole stretch.

    The first feature is the difference of the mean rise. All change their sign where beat and half beat are exchanged.
    """
    rate, (heard, drums) = stems.load_sums(source, (("bass", "other", "vocals"), ("drums",)), downmix=True)
    record = source.path / "song.json"
    exact = Beats(float(records.read(record, schemas.COMPOSED)["bpm"]), 0.0) if record.is_file() else None
    beats = exact or beats_of(drums.sound, rate, drums=True)
    if beats is None:
        return None
    features = pattern_features(np.ascontiguousarray(heard.sound[:, 0]), rate, beats)
    position = positions_of(features)
    first, last = int(np.ceil(position[0])), int(position[-1])
    placed = on_grid(features[:SOUND], position, np.arange(first * GRID, last * GRID) / GRID)
    rises = placed[LEVELS:].reshape(SOUND - LEVELS, -1, GRID)
    curves = np.stack([rises[:LEVELS].mean(axis=0), *(rises[band].mean(axis=0) for band in BANDS)])
    wide = np.maximum(curves, np.maximum(np.roll(curves, 1, axis=-1), np.roll(curves, -1, axis=-1)))
    rows = [wide[..., 0] - wide[..., GRID // 2]]
    rows += [changes(placed[:LEVELS], length, 0) - changes(placed[:LEVELS], length, GRID // 2) for length in LENGTHS]
    edge = max(LENGTHS)
    every = np.concatenate([np.atleast_2d(row) for row in rows])[:, edge : -edge - 1]
    stretches = every.shape[1] // STRETCH
    if not stretches:
        return None
    return np.stack([part.mean(axis=1) for part in np.array_split(every, stretches, axis=1)])


def changes(levels: np.ndarray, length: int, place: int) -> np.ndarray:
    """Change of the spectrum at one place of each beat, from the mean over `length` beats before to that after it, (beats,)."""
    total = np.cumsum(np.pad(levels, ((0, 0), (1, 0))), axis=1)
    size, beats = length * GRID, levels.shape[1] // GRID
    at = np.clip(np.arange(beats) * GRID + place, size, total.shape[1] - 1 - size)
    before, after = total[:, at] - total[:, at - size], total[:, at + size] - total[:, at]
    return np.asarray(abs(after - before).mean(axis=0) / size)


def judge_of(songs: list[np.ndarray]) -> np.ndarray:
    """Weights of a logistic regression without a constant, each song an example, (features,)."""
    rows = np.concatenate(songs)
    share = np.concatenate([np.full(len(song), 1 / len(song)) for song in songs])
    scale = rows.std(axis=0) + 1e-9

    def loss(weights: np.ndarray) -> float:
        margin = rows / scale @ weights
        return float((share * np.logaddexp(0, -margin)).sum() + PENALTY / 2 * (weights**2).sum())

    return np.asarray(scipy.optimize.minimize(loss, np.zeros(rows.shape[1])).x / scale)


def right(songs: list[np.ndarray], judge: np.ndarray) -> int:
    return sum(bool((song @ judge).mean() > 0) for song in songs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", action="append", type=Path, required=True, help="folder of songs")
    parser.add_argument("--composed", type=Path, required=True, help="folder that launch/compose.py wrote")
    options = parser.parse_args()
    found: dict[str, list[np.ndarray]] = {}
    for folder in (*options.songs, options.composed):
        for source in layouts.find_songs(folder):
            if (song := differences(source)) is not None:
                name = "composed" if folder == options.composed else source.name.split()[0]
                found.setdefault(name, []).append(song)
    plain = [name for name in found if name != "composed"]
    envelope = np.eye(next(iter(found.values()))[0].shape[1])[0]
    print(f"| songs | number | {ENVELOPE} | learnt from the others but composed | from the others | from composed alone |")
    print("| --- " * 6 + "|")
    sums = np.zeros(5, int)
    for name, songs in found.items():
        counts = [right(songs, envelope)]
        for sources in (plain, list(found), ["composed"]):
            others = [song for source in sources if source != name for song in found[source]]
            counts.append(right(songs, judge_of(others)) if others else -1)
        sums += np.array([len(songs), *counts]) * (name != "composed")
        print(f"| {name} | {len(songs)} | {' | '.join('–' if n < 0 else str(n) for n in counts)} |", flush=True)
    print(f"| all but composed | {' | '.join(str(n) for n in sums)} |")
    return 0


if __name__ == "__main__":
    console.exit_with(main)

"""How good are drums that are only sketched: strokes of other songs where a pattern network wants them?

python tests/benchmarks/sketch.py --data DIR [--more DIR] [--named freedoom] [--steps 400] [--work DIR] [--json FILE]

Each song of --data is left out in turn: the network and the bank of strokes are made of the others, and of the songs of --more
outside of its test/ (with --named, of those whose name begins with it), which give patterns but no strokes. Rows beside it: the
truth, its pattern played by another song's strokes, and what needs no training. The distance is of all windows of all songs.
With --work, what is finished is kept and not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from p2p_dist.audio import drum_classes, layouts, stems, strokes
from p2p_dist.audio.beats import Beats
from p2p_dist.audio.drum_classes import Onset
from p2p_dist.audio.layouts import Source
from p2p_dist.audio.pattern_features import FRAME, pattern_features
from p2p_dist.common import console, files
from p2p_dist.evaluate.baselines import baseline_stems
from p2p_dist.evaluate.held_out_songs import beats_of
from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.measure import window_rows
from p2p_dist.evaluate.measures.table import MEASURES, OfWindows
from p2p_dist.evaluate.measures.truth import Stem, Truth
from p2p_dist.generate import sketch
from p2p_dist.model import pattern
from p2p_dist.settings.config import Data

COLUMNS = ("lock8", "f1t_beyond_chance", "ec1", "mmd", "flux_ratio", "density_ratio", "level_error")
TRUE, TRUE_PATTERN, AUTOMATIC, KNOWN = "true drums", "true pattern, strokes of another song", "sketch", "sketch, known beats"


@dataclass
class Song:
    """One song: its sound, mono, the strokes of its drums and their beats."""

    name: str
    rate: int
    drums: np.ndarray
    heard: np.ndarray
    onsets: list[Onset]
    beats: Beats | None


def read(source: Source) -> Song:
    rate, (drums, heard) = stems.load_sums(source, (("drums",), ("bass", "other", "vocals")), downmix=True)
    made = np.ascontiguousarray(drums.sound[:, 0])
    beats = beats_of(drums.sound, rate)
    return Song(source.name, rate, made, np.ascontiguousarray(heard.sound[:, 0]), drum_classes.onsets(made, rate), beats)


def for_training(song: Song) -> pattern.Song:
    features = pattern_features(song.heard, song.rate, song.beats)
    return features, drum_classes.activations(song.onsets, features.shape[1], FRAME)


def trained(songs: list[pattern.Song], steps: int, seed: int, path: Path | None) -> pattern.Pattern:
    """A network trained on these songs, or the one that was trained before."""
    from safetensors.torch import load, save

    network = pattern.Pattern()
    if path is not None and path.exists():
        network.load_state_dict(load(path.read_bytes()))
        return network
    begun = time.process_time()
    network = pattern.train_pattern(songs, steps, seed).network
    print(f"trained on {len(songs)} songs: {time.process_time() - begun:.0f} s of processor", file=sys.stderr, flush=True)
    if path is not None:
        files.write_bytes(path, save(network.state_dict()))
    return network


def sketched(song: Song, onsets: list[Onset], bank: strokes.Bank, number: int) -> np.ndarray:
    """Play strokes with the kit of one of the other songs."""
    kit = bank.kits[sorted(bank.kits)[number % len(bank.kits)]]
    level = strokes.input_level(song.heard, song.rate) + bank.offset
    return sketch.lay(onsets, kit, len(song.heard), song.rate, level, seed=number)


def stems_of(song: Song, network: pattern.Pattern, bank: strokes.Bank, number: int, density: float) -> dict[str, np.ndarray]:
    """The stems to measure, each (samples,)."""
    heard, level = song.heard[:, None], 0.0
    tracked = beats_of(heard, song.rate)
    rows = {
        TRUE: song.drums,
        TRUE_PATTERN: sketched(song, song.onsets, bank, number),
        baseline_stems.COPY: song.heard,
        baseline_stems.SILENCE: np.zeros_like(song.heard),
    }
    for name, grid, beats in (
        (AUTOMATIC, baseline_stems.GRID_TRACKED, tracked),
        (KNOWN, baseline_stems.GRID_KNOWN, song.beats),
    ):
        if beats is not None:
            rows[grid] = baseline_stems.rock_grid(heard, song.rate, beats, level)[:, 0]
        found = pattern.predict(network, pattern_features(song.heard, song.rate, beats))
        rows[name] = sketched(song, sketch.pick(found, bank.rates, density), bank, number)
    return rows


def measured(sound: np.ndarray, truth: Truth) -> tuple[dict[str, float | None], list[np.ndarray]]:
    """Measures of one stem, and the descriptors of its windows that are not silent."""
    stem = Stem(sound[:, None], truth)
    windows = window_rows(stem)
    row = {}
    for name in COLUMNS:
        computed = MEASURES[name].computed
        if isinstance(computed, OfWindows):
            row[name] = computed.combine(windows)
    return row, [descriptors.describe(one.power) for one in stem.windows if one.power.max() > 0]


def table(rows: dict[str, list[dict[str, float | None]]]) -> str:
    """Means over the songs; of the level the median."""
    lines = ["| stem | " + " | ".join(COLUMNS) + " |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for name, songs in rows.items():
        cells = []
        for column in COLUMNS:
            values = [value for song in songs if (value := song.get(column)) is not None]
            middle = np.median if column == "level_error" else np.mean
            cells.append(f"{middle(values):.2f}" if values else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of songs; each is left out in turn")
    parser.add_argument("--more", type=Path, help="folder of further songs to train on")
    parser.add_argument("--named", default="", help="train only on songs of --more whose name begins with this")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--density", type=float, default=sketch.DENSITY)
    parser.add_argument("--work", type=Path, help="folder for the trained networks, which are used again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    songs = [read(source) for source in layouts.find_songs(options.data)]
    if len(songs) < 2:
        raise ValueError(f"{options.data}: it needs two songs, to leave one out")
    further = layouts.find_songs(options.more) if options.more else []
    more = [for_training(read(s)) for s in further if s.split != "test" and s.name.startswith(options.named)]
    own = [for_training(song) for song in songs]
    kits = {song.name: strokes.cut_kit(song.drums, song.heard, song.rate, song.onsets) for song in songs}
    rows: dict[str, list[dict[str, float | None]]] = {}
    described: dict[str, list[np.ndarray]] = {}
    real: list[np.ndarray] = []
    for number, song in enumerate(songs):
        others = [one for n, one in enumerate(own) if n != number]
        path = options.work and options.work / f"{number}-{options.named or 'all'}-{options.steps}-{options.seed}.safetensors"
        network = trained([*others, *more], options.steps, options.seed, path)
        bank = strokes.Bank({name: kit for name, kit in kits.items() if name != song.name})
        truth = Truth(song.drums[:, None], song.heard[:, None], song.rate, song.beats, Data())
        real += truth.real
        for name, sound in stems_of(song, network, bank, number + 1, options.density).items():
            row, windows = measured(sound, truth)
            rows.setdefault(name, []).append({"song": song.name, **row})
            described.setdefault(name, []).extend(windows)
        print(f"{song.name}: {len(truth.windows)} windows", file=sys.stderr, flush=True)
    for name, windows in described.items():
        if windows:
            between = descriptors.kernels(np.array(windows), np.array(real))
            distance = descriptors.estimate(between, np.arange(len(windows)), np.arange(len(real)))
            for row in rows[name]:
                row["mmd"] = distance
    print(f"{len(songs)} songs, {len(real)} windows; {options.steps} steps on {len(own) - 1} of them and {len(more)} more\n")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    console.exit_with(main)

"""How good are drums that are only sketched: strokes of other songs where a pattern network wants them?

python tests/benchmarks/sketch.py --data DIR [--more DIR ...] [--named freedoom] [--steps 150] [--seeds 3]
    [--work DIR] [--json FILE]

Each song of --data is left out in turn: the network and the bank of strokes are made of the others, and of the songs of
--more outside of its test/ (with --named, of those whose name begins with it), which give patterns but no strokes. Rows beside
it: the truth, its pattern played by another song's strokes, what needs no training, sketches with one setting of the preset
`sketch` turned off, and how well activations alone, those of the true strokes and predicted ones, correlate with the true onset
envelope. The distance is of all windows of all songs.
Figures are means over the seeds of the network, with their standard deviation.
With --work, what is finished is kept and not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from p2p_dist.evaluate.measures import descriptors, onsets
from p2p_dist.evaluate.measures.kinds import OfWindows
from p2p_dist.evaluate.measures.measure import window_rows
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.evaluate.measures.truth import Stem, Truth
from p2p_dist.generate import sketch
from p2p_dist.model import pattern
from p2p_dist.settings import presets
from p2p_dist.settings.config import Data

COLUMNS = ("lock8", "f1t_beyond_chance", "ec1", "mmd", "flux_ratio", "density_ratio", "level_error")
TRUE, TRUE_PATTERN, AUTOMATIC, KNOWN = "true drums", "true pattern, strokes of another song", "sketch", "sketch, known beats"
ACTIVATIONS = "activations alone, "

PLAYED = presets.preset("sketch").model
WITHOUT = {
    ", pattern not repeated": "repeat_pattern",
    ", without soft hats": "soft_hats",
    ", classes uneven": "even_classes",
    ", at any time": "on_steps",
}
"""Rows of sketches -> the setting that is turned off."""

ANY_STRENGTH = ", strokes of any strength"
"""Rows of sketches whose kits are made without `train.loud_strokes`."""

Rows = dict[str, list[dict[str, Any]]]


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
    beats = beats_of(drums.sound, rate, drums=True)
    return Song(source.name, rate, made, np.ascontiguousarray(heard.sound[:, 0]), drum_classes.onsets(made, rate), beats)


def for_training(source: Source, work: Path) -> pattern.Song:
    """Features and activations of a song, with the beats of its drums."""
    path = work / f"{source.name}.npz"
    if path.exists():
        with np.load(path) as found:
            return found["features"], found["activations"]
    song = read(source)
    features = pattern_features(song.heard, song.rate, song.beats)
    made = features, drum_classes.activations(song.onsets, features.shape[1], FRAME)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, features=made[0], activations=made[1])
    return made


def kit_of(source: Source, work: Path, *, loud: bool = True) -> strokes.Kit:
    path = work / f"{source.name}{'' if loud else ANY_STRENGTH}.kit"
    if not path.exists():
        song = read(source)
        kit = strokes.cut_kit(song.drums, song.heard, song.rate, song.onsets, loud=loud)
        strokes.save(path, strokes.Bank({song.name: kit}))
    (kit,) = strokes.load(path).kits.values()
    return kit


def trained(songs: list[pattern.Song], steps: int, seed: int, path: Path) -> pattern.Pattern:
    """A network trained on these songs, or the one that was trained before."""
    from safetensors.torch import load, save

    network = pattern.Pattern()
    if path.exists():
        network.load_state_dict(load(path.read_bytes()))
        return network
    begun = time.process_time()
    network = pattern.train_pattern(songs, steps, seed).network
    print(f"trained on {len(songs)} songs: {time.process_time() - begun:.0f} s of processor", file=sys.stderr, flush=True)
    files.write_bytes(path, save(network.state_dict()))
    return network


def sketched(song: Song, onsets: list[Onset], bank: strokes.Bank, number: int, among: float = 1.0) -> np.ndarray:
    """Play strokes with the kit of one of the other songs."""
    kit = bank.kits[sorted(bank.kits)[number % len(bank.kits)]]
    level = strokes.input_level(song.heard, song.rate) + bank.offset
    return sketch.lay(onsets, kit, len(song.heard), song.rate, level, number, among)


def envelope_row(activations: np.ndarray, truth: Truth) -> dict[str, float | None]:
    """How well the sum of a network's activations correlates with the true onset envelope."""
    times, total = np.arange(activations.shape[1]) * FRAME, activations[: drum_classes.REST].sum(axis=0)
    frames = [(window.begin + np.arange(len(window.rise))) * onsets.FRAME for window in truth.windows]
    found = [onsets.correlation(np.interp(at, times, total), one.rise) for at, one in zip(frames, truth.windows, strict=True)]
    return {"ec1": float(np.mean([value for value in found if value is not None]))}


def stems_of(
    song: Song, network: pattern.Pattern, bank: strokes.Bank, any_strength: strokes.Bank, number: int, density: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The stems to measure, each (samples,), and the activations of the true strokes and for the sketches."""
    heard, level = song.heard[:, None], 0.0
    predicted = {TRUE: drum_classes.activations(song.onsets, 1 + round(len(song.heard) / song.rate / FRAME), FRAME)}
    tracked = beats_of(heard, song.rate, drums=False)
    rows = {
        TRUE: song.drums,
        TRUE_PATTERN: sketched(song, song.onsets, any_strength, number),
        baseline_stems.COPY: song.heard,
        baseline_stems.SILENCE: np.zeros_like(song.heard),
    }
    for name, grid, beats in (
        (AUTOMATIC, baseline_stems.GRID_TRACKED, tracked),
        (KNOWN, baseline_stems.GRID_KNOWN, song.beats),
    ):
        if beats is not None:
            rows[grid] = baseline_stems.rock_grid(heard, song.rate, beats, level)[:, 0]
        predicted[name] = pattern.predict(network, pattern_features(song.heard, song.rate, beats))
        for kind, off in {"": {}, **{kind: {setting: False} for kind, setting in WITHOUT.items()}}.items():
            onsets = sketch.choose_strokes(predicted[name], bank.rates, beats, replace(PLAYED, **off), density)
            rows[name + kind] = sketched(song, onsets, bank, number, sketch.LOUDEST)
            if not off:
                rows[name + ANY_STRENGTH] = sketched(song, onsets, any_strength, number, sketch.LOUDEST)
    return rows, predicted


def measured(sound: np.ndarray, truth: Truth) -> tuple[dict[str, float | None], list[list[float]]]:
    """Measures of one stem, and the descriptors of its windows that are not silent."""
    stem = Stem(sound[:, None], truth)
    windows = window_rows(stem)
    row = {}
    for name in COLUMNS:
        computed = MEASURES[name].computed
        if isinstance(computed, OfWindows):
            row[name] = computed.combine(windows)
    return row, [descriptors.describe(one.power).tolist() for one in stem.windows if one.power.max() > 0]


def table(seeds: list[Rows]) -> str:
    """Means over the songs, of the level the median; then mean and standard deviation over the seeds, if they differ."""
    lines = ["| stem | " + " | ".join(COLUMNS) + " |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for name in seeds[0]:
        cells = []
        for column in COLUMNS:
            middle = np.median if column == "level_error" else np.mean
            known = [[song[column] for song in rows[name] if song.get(column) is not None] for rows in seeds]
            found = [float(middle(values)) for values in known if values]
            spread = f" ± {np.std(found, ddof=1):.2f}" if len(found) > 1 and np.ptp(found) > 0 else ""
            cells.append(f"{np.mean(found):.2f}{spread}" if found else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def all_rows(options: argparse.Namespace, seed: int, work: Path) -> tuple[Rows, dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Measures of each row and song, descriptors of each row's windows, and those of the true windows."""
    sources = layouts.find_songs(options.data)
    if len(sources) < 2:
        raise ValueError(f"{options.data}: it needs two songs, to leave one out")
    further = [source for folder in options.more for source in layouts.find_songs(folder) if source.split != "test"]
    further = [source for source in further if source.name.startswith(options.named)]
    more = [for_training(source, work) for source in further]
    learnt = hashlib.sha256("\n".join(source.name for source in further).encode()).hexdigest()[:8]
    rows: Rows = {}
    described: dict[str, list[np.ndarray]] = {}
    real: list[np.ndarray] = []
    for number, source in enumerate(sources):
        name = f"{number}-{learnt}-{options.steps}-{seed}"
        path = work / f"{name}-{options.density:g}.json"
        if not path.exists():
            others = [other for other in sources if other is not source]
            network = trained(
                [*(for_training(other, work) for other in others), *more],
                options.steps,
                seed,
                work / f"{name}.safetensors",
            )
            bank, any_strength = (
                strokes.Bank({other.name: kit_of(other, work, loud=loud) for other in others}) for loud in (True, False)
            )
            song = read(source)
            truth = Truth(song.drums[:, None], song.heard[:, None], song.rate, song.beats, Data())
            made, predicted = stems_of(song, network, bank, any_strength, number, options.density)
            found = {row: measured(sound, truth) for row, sound in made.items()}
            found |= {ACTIVATIONS + row: (envelope_row(one, truth), []) for row, one in predicted.items()}
            files.write_json(path, {"rows": found, "real": [window.tolist() for window in truth.real]})
            print(f"{song.name}: {len(truth.windows)} windows", file=sys.stderr, flush=True)
        content = json.loads(path.read_text())
        real += [np.array(window) for window in content["real"]]
        for row, (measures, windows) in content["rows"].items():
            rows.setdefault(row, []).append({"song": source.name, **measures})
            described.setdefault(row, []).extend(np.array(window) for window in windows)
    return rows, described, real


def of_seed(options: argparse.Namespace, seed: int, work: Path) -> tuple[Rows, int]:
    """Rows of each song with the distance of all windows together, and the number of true windows."""
    rows, described, real = all_rows(options, seed, work)
    for name, windows in described.items():
        if windows:
            between = descriptors.kernels(np.array(windows), np.array(real))
            distance = descriptors.estimate(between, np.arange(len(windows)), np.arange(len(real)))
            for row in rows[name]:
                row["mmd"] = distance
    return rows, len(real)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of songs; each is left out in turn")
    parser.add_argument("--more", type=Path, action="append", default=[], help="folder of further songs to train on")
    parser.add_argument("--named", default="", help="train only on songs of --more whose name begins with this")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=1, help="networks of each song, with the seeds 0, 1, ...")
    parser.add_argument("--density", type=float, default=sketch.DENSITY)
    parser.add_argument("--work", type=Path, help="folder in which what is finished is kept, and found again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        seeds = [of_seed(options, seed, work) for seed in range(options.seeds)]
    windows = seeds[0][1]
    told = "seed 0" if options.seeds == 1 else f"seeds 0 to {options.seeds - 1}"
    print(f"{len(seeds[0][0][TRUE])} songs, {windows} windows; {options.steps} steps, {told}\n")
    print(table([rows for rows, _ in seeds]))
    if options.json:
        options.json.write_text(json.dumps([rows for rows, _ in seeds], indent=1))
    return 0


if __name__ == "__main__":
    console.exit_with(main)

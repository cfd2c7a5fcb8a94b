"""Make the starter model that comes with the package, measure it, and write its model card.

python tests/benchmarks/starter.py --data DIR [--out p2p_dist/generate/starter] [--work WORK]
python tests/benchmarks/starter.py --data DIR --card    measures the model that is there, and writes its card again

DIR holds evr/ (real songs, CC0), practice/ (renderings, of which those named freedoom are BSD-3) and, to measure only,
thesis_clips/. No other song is learnt from but those that launch/compose.py's program composes. What is finished is kept in
WORK, and found again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent))
import sketch as strokes_alone
import starter_card

from p2p_dist.audio import drum_classes, invert, layouts, strokes
from p2p_dist.audio.pattern_features import pattern_features
from p2p_dist.audio.stems import resample
from p2p_dist.common import console, files, records
from p2p_dist.common.workers import each
from p2p_dist.data.composed import render
from p2p_dist.data.shards import keyed_songs
from p2p_dist.data.song_record import KeyedSong
from p2p_dist.evaluate.baselines import baseline_stems
from p2p_dist.evaluate.held_out_songs import beats_of
from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.truth import Truth
from p2p_dist.generate import exported, exported_drummer, pattern_stage
from p2p_dist.generate.drummer import Drummer
from p2p_dist.generate.exported_config import STARTER, STARTER_FOLDER
from p2p_dist.generate.model import Model
from p2p_dist.generate.sketch import choose_strokes
from p2p_dist.model.pattern import predict
from p2p_dist.settings.config import Config, Data, Train
from p2p_dist.settings.config import Model as Network

STEPS, SEED = 200, 0
SONGS, COMPOSED_SEED, SECONDS = 20, 1, 60.0
"""Composed songs, the seed of their composer, and their least length."""

PLAYED = ("composed 1-0000 rock", "composed 1-0003 funk")
"""Composed songs that give strokes, too: those of an acoustic kit. Their distances are like those of the real songs' kits."""

FEWEST = 20
"""Windows without which a distance means nothing."""

Rows = strokes_alone.Rows


@dataclass(frozen=True)
class Allowed:
    """Songs whose licence allows to learn from them: those of a folder whose names begin with `named`."""

    folder: str
    named: str
    author: str
    licence: str


REAL = Allowed("evr", "EVR - ", "Software-Entwicklungskit", "CC0 1.0")
RENDERED = Allowed("practice", "freedoom - ", "contributors to the Freedoom project", "BSD 3-Clause")
COMPOSED = Allowed("composed", "composed ", "the program of p2p_dist; sound font FluidR3_GM by Frank Wen", "MIT")


def allowed(root: Path, of: Allowed) -> list[KeyedSong]:
    """The songs of a folder that may be learnt from; never those of test/."""
    found = keyed_songs(root / of.folder, False)
    return [song for song in found if song.source.split != "test" and song.source.name.startswith(of.named)]


def songs_of(data: Path, work: Path, composed: int) -> list[tuple[Allowed, KeyedSong]]:
    """All songs to learn from; those that are composed are made in `work`."""
    for number in range(composed):
        render.write_song(work / COMPOSED.folder / "train", COMPOSED_SEED, number, SECONDS, render.SOUND_FONT)
    found = [(of, song) for of in (REAL, RENDERED) for song in allowed(data, of)]
    made = sorted(allowed(work, COMPOSED), key=lambda song: song.source.name)[:composed] if composed else []
    return [*found, *((COMPOSED, song) for song in made)]


def digest(song: KeyedSong) -> str:
    """The sha256 of a song's file, or of those of its stems."""
    path = song.source.path
    if path.is_file():
        return files.sha256_file(path)
    return files.digest({one.name: files.sha256_file(one) for one in sorted(path.glob("*.flac"))})


def one_thread() -> None:
    """Begin a worker process."""
    torch.set_num_threads(1)


def learn(songs: list[tuple[Allowed, KeyedSong]], work: Path, steps: int, workers: int) -> Model:
    """Learn a drummer, as the stage `pattern` of a run does: a network from all songs, strokes from real ones and `PLAYED`."""
    playing = Network(sketch=True, even_classes=True, repeat_pattern=True, soft_hats=True)
    config = Config(data=Data(), model=playing, train=Train(pattern_steps=steps, seed=SEED))
    for folder in ("songs", "networks"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    paths = {song.key: pattern_stage.place_of(work / "songs", song, config) for _, song in songs}
    jobs = [(song, paths[song.key], config) for _, song in songs]

    def tell(number: int, _: bool) -> None:
        say(f"{number + 1} of {len(songs)}: {songs[number][1].source.name}")

    each(pattern_stage.prepare, jobs, workers, tell, requests=(), begin=one_thread)
    playing = [path for path in paths.values() if pattern_stage.read(path).onsets]
    network = pattern_stage.train_network(work / "networks", STARTER, playing, config, lambda *_: None)
    bank = pattern_stage.bank_of([paths[song.key] for of, song in songs if of is REAL or song.source.name in PLAYED])
    names = {song.key: song.source.name for _, song in songs}
    bank = strokes.Bank({names[key]: kit for key, kit in bank.kits.items()})
    drums = Drummer(network.eval(), bank, config.data, config.model)
    return Model(f"{STARTER}@{steps}", "drums", steps, "", config.data, config.model, None, drums)


def stems_of(drums: Drummer, song: strokes_alone.Song) -> dict[str, np.ndarray]:
    """The stems to measure of one song, each (samples,)."""
    samples, peak = len(song.heard), float(np.abs(song.heard).max(initial=0))
    heard = song.heard[:, None]

    performance = drums.play(lambda: iter([song.heard]), song.rate, peak, song.name, 1.0)

    def played(onsets: list[drum_classes.Onset]) -> np.ndarray:
        sound = replace(performance, onsets=onsets).sketch(0).part(0, round(samples * drums.data.sample_rate / song.rate))
        return np.resize(resample(sound, drums.data.sample_rate, song.rate), samples)

    rows = {
        strokes_alone.TRUE: song.drums,
        starter_card.TRUE_PATTERN: played(song.onsets),
        baseline_stems.COPY: song.heard,
        baseline_stems.SILENCE: np.zeros_like(song.heard),
    }
    if performance.heard.beats is not None and performance.onsets:  # generate refuses other songs
        rows[starter_card.AUTOMATIC] = played(performance.onsets)
    if (tracked := beats_of(heard, song.rate, drums=False)) is not None:
        rows[baseline_stems.GRID_TRACKED] = baseline_stems.rock_grid(heard, song.rate, tracked, 0.0)[:, 0]
    if song.beats is not None:
        rows[baseline_stems.GRID_KNOWN] = baseline_stems.rock_grid(heard, song.rate, song.beats, 0.0)[:, 0]
        activations = predict(drums.network, pattern_features(song.heard, song.rate, song.beats))
        rows[starter_card.KNOWN] = played(choose_strokes(activations, drums.bank.rates, song.beats, drums.model))
    return {name: rows[name] for name in starter_card.ROWS if name in rows}


def added(mix: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """What a mix has more than its input: where it is 3 dB louder, the difference of the powers, with the phase of the mix.

    The thesis rendered input and mix apart, each from magnitudes and at a level of its own, so they are not subtracted as
    sound. Their levels are matched where both are loud, by the most frequent ratio of their powers.

    Args:
        mix, heard: (samples,) of one rate.
    """
    size, hop = 1024, 256
    spectrum = invert.stft(mix, size, hop)
    power, under = np.abs(spectrum) ** 2, np.abs(invert.stft(heard, size, hop)) ** 2
    loud = (power > 1e-4 * power.max()) & (under > 1e-4 * under.max())
    ratios = 10 * np.log10(power[loud] / under[loud])
    counts, edges = np.histogram(ratios, np.arange(-40, 40, 0.5))
    ratio = 10 ** ((edges[np.convolve(counts, np.ones(5), "same").argmax()] + 0.25) / 10)
    share = np.where(power > 2 * ratio * under, 1 - ratio * under / np.maximum(power, 1e-20), 0)
    return (invert.istft(spectrum * np.sqrt(share), size, hop, len(mix)) / np.sqrt(ratio)).astype(np.float32)


def clips(folder: Path) -> Iterator[tuple[strokes_alone.Song, np.ndarray]]:
    """The thesis's published excerpts as songs whose drums are the target, and the thesis's own output. Both are full mixes."""
    for path in sorted(folder.glob("*_input_*.wav")):
        (heard, rate), (made, _), (mix, _) = (
            soundfile.read(path.with_name(path.name.replace("input", part)), dtype="float32")
            for part in ("input", "output", "target")
        )
        samples = min(len(heard), len(made), len(mix))
        heard, made, mix = heard[:samples], made[:samples], mix[:samples]
        beats = beats_of(mix[:, None], rate, drums=True)
        yield strokes_alone.Song(path.stem, rate, mix, heard, [], beats), made


def mixes_of(drums: Drummer, song: strokes_alone.Song, made: np.ndarray) -> dict[str, np.ndarray]:
    """The mixes to measure of an excerpt of the thesis: what is made is added to the input."""
    stems = stems_of(drums, song)
    mixes = {name: song.heard + stems[name] for name in starter_card.MADE if name in stems}
    return {starter_card.TARGET: song.drums, starter_card.ALONE: song.heard, **mixes, starter_card.THESIS: made}


def without_input(song: strokes_alone.Song) -> strokes_alone.Song:
    """An excerpt of the thesis whose drums are what its target adds to the input."""
    stem = added(song.drums, song.heard)
    onsets = drum_classes.onsets(stem, song.rate)
    return replace(song, drums=stem, onsets=onsets, beats=beats_of(stem[:, None], song.rate, drums=True))


def parts_of(drums: Drummer, song: strokes_alone.Song, made: np.ndarray) -> dict[str, np.ndarray]:
    """The stems to measure of an excerpt of `without_input`."""
    return {**stems_of(drums, song), starter_card.THESIS: added(made, song.heard)}


def figures_of(songs: Iterator[tuple[strokes_alone.Song, Callable[[], dict[str, np.ndarray]]]], keep: Path) -> dict[str, Any]:
    """Measure what is made for songs: the rows of each, and the number of windows. What `keep` holds is not measured again.

    Args:
        songs: each with what makes the stems to measure.
    """
    rows: Rows = {}
    described: dict[str, list[list[float]]] = {}
    real: list[list[float]] = []
    for song, make in songs:
        path = keep / f"{song.name}.json"
        if not path.exists():
            truth = Truth(song.drums[:, None], song.heard[:, None], song.rate, song.beats, Data())
            found = {name: strokes_alone.measured(sound, truth) for name, sound in make().items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, {"rows": found, "real": [window.tolist() for window in truth.real]})
            say(f"measured: {song.name}")
        content = json.loads(path.read_text())
        real += content["real"]
        for name, (row, windows) in content["rows"].items():
            rows.setdefault(name, []).append(row)
            described.setdefault(name, []).extend(windows)
    for name, windows in described.items():
        if min(len(windows), len(real)) >= FEWEST:
            between = descriptors.kernels(np.array(windows), np.array(real))
            distance = descriptors.estimate(between, np.arange(len(windows)), np.arange(len(real)))
            for row in rows[name]:
                row["mmd"] = distance
    return {"rows": rows, "windows": len(real), "songs": len(next(iter(rows.values()), []))}


def measure(drums: Drummer, data: Path, keep: Path) -> dict[str, Any]:
    """Measure the drummer on all held-out songs: figures by the name of their set."""

    def held_out(folder: Path) -> Iterator[tuple[strokes_alone.Song, Callable[[], dict[str, np.ndarray]]]]:
        for source in layouts.find_songs(folder):
            if source.split == "test":
                song = strokes_alone.read(source)
                yield song, functools.partial(stems_of, drums, song)

    def mixed(folder: Path) -> Iterator[tuple[strokes_alone.Song, Callable[[], dict[str, np.ndarray]]]]:
        for song, made in clips(folder):
            yield song, functools.partial(mixes_of, drums, song, made)

    def alone(folder: Path) -> Iterator[tuple[strokes_alone.Song, Callable[[], dict[str, np.ndarray]]]]:
        for song, made in clips(folder):
            only = without_input(song)
            yield only, functools.partial(parts_of, drums, only, made)

    sets = {starter_card.REAL: held_out(data / "evr"), starter_card.RENDERED: held_out(data / "practice")}
    if (data / "thesis_clips").is_dir():
        sets[starter_card.MIXES], sets[starter_card.ADDED] = mixed(data / "thesis_clips"), alone(data / "thesis_clips")
    return {name: figures_of(songs, keep / str(number)) for number, (name, songs) in enumerate(sets.items())}


def write_card(folder: Path, data: Path) -> None:
    """Measure a model that was made, and write its card again."""
    torch.set_num_threads(1)
    found, content = exported.read_exported(folder), records.read(folder / exported_drummer.CONFIG)
    assert found.drummer is not None
    with tempfile.TemporaryDirectory() as keep:
        figures = measure(found.drummer, data, Path(keep))
    kits = sorted(found.drummer.bank.kits)
    files.write_text(
        folder / exported_drummer.CARD, starter_card.text(content, kits, figures, content["recipe"]["composer_seed"])
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with evr/ and practice/")
    parser.add_argument("--out", type=Path, default=STARTER_FOLDER, help="folder of the model, which is replaced")
    parser.add_argument("--work", type=Path, help="folder in which what is finished is kept, and found again")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--composed", type=int, default=SONGS, help="number of composed songs")
    parser.add_argument("--workers", type=int, default=2, help="processes that hear songs")
    parser.add_argument("--unmeasured", action="store_true", help="leave out the figures")
    parser.add_argument("--card", action="store_true", help="measure the model in --out, and write its card again")
    options = parser.parse_args()
    begun = time.monotonic()
    if options.card:
        write_card(options.out, options.data)
        return console.DONE
    exported.check_out(options.out, overwrite=True)
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        songs = songs_of(options.data, work, options.composed)
        model = learn(songs, work, options.steps, options.workers)
        trained_on = [
            {"name": song.source.name, "author": of.author, "licence": of.licence, "sha256": digest(song)} for of, song in songs
        ]
        recipe = {
            "steps": options.steps,
            "seed": SEED,
            "composed_songs": options.composed,
            "composer_seed": COMPOSED_SEED,
            "seconds_of_composed_songs": SECONDS,
        }
        assert model.drummer is not None
        kits = sorted(model.drummer.bank.kits)
        made = work / "made"
        files.remove_tree(made)
        exported_drummer.export(
            model, trained_on, recipe, made, lambda content: starter_card.text(content, kits, {}, COMPOSED_SEED)
        )
        found = exported.read_exported(made)  # as others read it: weights in float16, strokes coded
        assert found.drummer is not None
        figures = {} if options.unmeasured else measure(found.drummer, options.data, work / "figures" / found.sha256[:12])
        files.remove_tree(options.out)
        content = exported_drummer.export(
            model, trained_on, recipe, options.out, lambda content: starter_card.text(content, kits, figures, COMPOSED_SEED)
        )
    size = sum(path.stat().st_size for path in options.out.iterdir())
    seconds = time.monotonic() - begun
    say(f"{content['name']}: {len(songs)} songs, {size / 1e6:.2f} MB in {options.out}, {seconds:.0f} s")
    return console.DONE


if __name__ == "__main__":
    console.exit_with(main)

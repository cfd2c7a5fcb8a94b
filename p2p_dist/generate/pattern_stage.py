"""The stage `pattern` of a run with sketches: train the drummer, and sketch the training songs for the generator to learn from.

RUN/pattern/songs/       what is known of each training song: KEY-DIGEST.npz, KEY-DIGEST.kit
RUN/pattern/networks/    the trained pattern networks, NAME-DIGEST.safetensors, and training.safetensors, the state of the one
                         in training; DIGEST is of songs and settings
RUN/pattern/finished/    an empty file for each piece of work that is finished, one more if a damaged one is made again:
                         a job that is stopped and started sees progress
RUN/pattern/guides/      sketches of the training songs, see data/guides.py
RUN/pattern/drummer.json and its files, see drummer.py
RUN/pattern/measures.json  how well the pattern network predicts the validation songs, if there are any, see
                           pattern_measures.py

What is known of a song, and a network trained on the same songs, is not made again. A training goes on from its last state,
exactly as if it had not stopped. Sketches take seconds, and are made together.

The generator learns from sketches like those that it will see. They play the true strokes, changed a little. With
`train.predicted_strokes` one more sketch of each song plays what a network predicts that never saw the song: there are two such
networks, each trained on the songs of the other half.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch

from p2p_dist.audio import attacks, drum_classes, stems, strokes
from p2p_dist.audio.beats import DRUMS_LATE, Beats
from p2p_dist.audio.drum_classes import CLASSES, Onset
from p2p_dist.audio.pattern_features import FRAME, SOUND, pattern_features
from p2p_dist.audio.rhythm import beats_in
from p2p_dist.audio.strokes import Bank, Kit
from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.workers import each
from p2p_dist.data import guides, manifest, packing, pairs
from p2p_dist.data.augment import random_for
from p2p_dist.data.shards import keyed_songs
from p2p_dist.data.song_record import KeyedSong
from p2p_dist.generate import drummer, pattern_measures
from p2p_dist.generate.drummer import Drummer, Guide, Heard, listen
from p2p_dist.generate.sketch import LOUDEST, Sketch, choose_strokes
from p2p_dist.model.pattern import Pattern, Song, Training, predict, train_pattern
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science
from p2p_dist.settings.config import Config, parse_task

KITS = 32
"""Most kits of a bank: more make it large, and each song is played with one."""

_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # to stop
_AT_ONCE = 1024  # frames of a sketch's picture made at once
_SAVE_EVERY = 50  # steps of a pattern network
_DROPPED, _LOUDER = 0.05, 0.2  # share of true strokes that a sketch leaves out; standard deviation of their strength, log


class OnDone(Protocol):
    """Called with a note, the amount of work done since the last call, and the name of a piece that is finished."""

    def __call__(self, note: str, count: int, piece: str = "") -> None: ...


@dataclass(frozen=True)
class Known:
    """What is known of a training song. frames: of its pictures. heard, true: with beats of the input, and of the drums."""

    frames: int
    reference: float
    onsets: list[Onset]
    heard: Heard
    true: Heard


def make(run: RunDir, config: Config, workers: int) -> None:
    """Run the stage.

    Raises:
        ValueError: songs have no audio, have changed since their shards were made, or hold no drums.
        OSError: the machine refused, for instance a full disk; what is finished stays.
    """
    songs, unseen = training_songs(run, config), validation_songs(run, config)
    folders = {name: run.pattern / name for name in ("songs", "networks", "guides", "finished")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        files.refuse_link(folder)
        files.remove_garbage(folder)
    steps = config.train.pattern_steps
    count = 3 if config.train.predicted_strokes else 1
    once = 2 * len(songs) + len(unseen)  # pieces of work beside the steps
    with console.Progress("pattern", once + count * steps, start=None, status=run.status) as progress:
        done = 0

        def on_done(note: str, count: int, piece: str = "") -> None:
            nonlocal done
            done += count
            progress.update(done, note)
            if piece:
                note_finished(folders["finished"], piece)

        heard = [*songs, *unseen]
        paths = {song.key: place_of(folders["songs"], song, config) for song in heard}
        each(
            prepare,
            [(song, paths[song.key], config) for song in heard],
            workers,
            lambda n, is_new: on_done(heard[n].source.name, 1, f"song-{paths[heard[n].key].stem}" if is_new else ""),
            requests=_REQUESTS,
            begin=_one_thread,
        )
        bank = bank_of([paths[song.key] for song in songs if config.train.gives_kit(song.source.name)])
        playing = [song for song in songs if read(paths[song.key]).onsets]
        halves = {}
        if config.train.predicted_strokes and len(playing) > 1:
            halves = {"even": playing[::2], "odd": playing[1::2]}
        progress.total = once + (1 + len(halves)) * steps
        networks = {
            name: train_network(folders["networks"], name, [paths[song.key] for song in part], config, on_done)
            for name, part in {"all": playing, **halves}.items()
        }
        measured = pattern_measures.measure(networks["all"], ((song.source.name, read(paths[song.key])) for song in unseen))
        if measured:
            records.write(run.pattern_measures, schemas.PATTERN_MEASURES, measured)
        drums = Drummer(networks["all"], bank, config.data, config.model)
        # Predicted by the network of the other half, which did not see the song.
        other = {song.key: networks["odd" if name == "even" else "even"] for name, part in halves.items() for song in part}
        jobs = [
            (song, paths[song.key], config, drums.bank.rates, other.get(song.key, drums.network).state_dict()) for song in songs
        ]
        whose = files.digest([[paths[song.key].name for song in songs], steps, config.train.seed])[:12]

        def on_sketch(number: int, _: dict[str, Any]) -> None:
            on_done(songs[number].source.name, 1)
            (folders["finished"] / f"sketch-{songs[number].key}-{whose}").touch()  # all are made at each start

        jobs_of_sketches = [(folders["guides"], *job) for job in jobs]
        entries = each(sketch_song, jobs_of_sketches, workers, on_sketch, requests=_REQUESTS, begin=_one_thread)
        width = config.data.picture_channels * config.data.mels + 2
        drummer.save(run.pattern, drums)
        training = run.dataset_record()["training"]
        variants = guides.variants_of(config.train)
        by_key = {song.key: entry for song, entry in zip(songs, entries, strict=True)}
        guides.write_record(folders["guides"], variants, width, by_key, training)
    if measured:
        console.say(pattern_measures.in_words(measured))


def note_finished(folder: Path, piece: str) -> None:
    """Add a file for a piece of work that was made: another one if it was made before."""
    path, again = folder / piece, 1
    while path.exists():
        again += 1
        path = folder / f"{piece}.{again}"
    path.touch()


def training_songs(run: RunDir, config: Config) -> list[KeyedSong]:
    """Return the songs that the run's training windows were cut from.

    Raises:
        ValueError: there is none, or one is missing, has no audio or has changed since.
    """
    assert config.data.root is not None
    content = manifest.read(run.shards)
    if content["order"] == "sorted":
        raise ValueError(
            f"{run.shards} was made by an earlier version and cannot be used with model.sketch, even after --convert: move it "
            "to another folder, then run the launch command again to recreate it"
        )
    part = content["splits"].get("train")
    if part is None or not part["songs"]:
        raise ValueError(
            f"{run.shards} has no training songs to sketch: add songs to the folder train/ of --data, or repair those that "
            "were left out, and run the launch command again"
        )
    songs = []
    for listed, song in _listed_songs(run, config, "train"):
        if song is None:
            raise ValueError(
                f"{config.data.root}: the training song {console.one_line(listed['name'])} is not the one that "
                f"{run.shards.name} was made of: sketches need the songs themselves; put it back, or start a new run with "
                "--run NAME"
            )
        if song.source.pairs:
            raise ValueError(f"{song.source.path} holds spectrograms without audio, and model.sketch needs audio: leave it out")
        songs.append(song)
    return songs


def validation_songs(run: RunDir, config: Config) -> list[KeyedSong]:
    """Return the validation songs of the run, without those that are missing, changed or have no audio."""
    return [song for _, song in _listed_songs(run, config, "valid") if song is not None and not song.source.pairs]


def _listed_songs(run: RunDir, config: Config, split: str) -> list[tuple[dict[str, Any], KeyedSong | None]]:
    """Return the songs of a split as the manifest lists them, each with the song itself; None if that is missing or changed."""
    assert config.data.root is not None
    every = keyed_songs(Path(config.data.root), config.data.split_by_title)
    found, packed = {song.key: song for song in every if song.source.split == split}, packing.packed(run.shards)
    songs = []
    for listed in manifest.read(run.shards)["splits"].get(split, {"songs": []})["songs"]:
        song = found.get(listed["key"])
        stands = song is not None and song.finished(run.shards, config.data, packed) is not None
        songs.append((listed, song if stands else None))
    return songs


def place_of(folder: Path, song: KeyedSong, config: Config) -> Path:
    """Return where what is known of a song is kept: another place for another song or other settings."""
    settings = [science.recorded(config.data), *["loud strokes"] * config.train.loud_strokes]
    return folder / f"{song.key}-{files.digest([song.stamp, *settings])[:12]}.npz"


def prepare(song: KeyedSong, path: Path, config: Config) -> bool:
    """Find out what is known of a song, unless it is there already; a kit of its strokes lies beside it.

    Returns:
        whether it was not there.
    """
    if _is_whole(path):
        return False
    data = config.data
    rate, (heard, made) = stems.load_sums(song.source, parse_task(data.task), downmix=True)
    input, drums = np.ascontiguousarray(heard.sound[:, 0]), np.ascontiguousarray(made.sound[:, 0])
    del heard, made
    power = pairs.powers_of(input[:, None], rate, data)
    told = listen(lambda: iter([input]), rate, float(np.abs(input).max(initial=0)))
    true = beats_in(stems.resample(drums, rate, attacks.RATE), DRUMS_LATE)
    onsets = drum_classes.onsets(drums, rate)
    silent = Kit({kind: [] for kind in CLASSES}, (0.0,) * (len(CLASSES) + 1), 0.0)  # silence has no level
    kit = strokes.cut_kit(drums, input, rate, onsets, loud=config.train.loud_strokes) if onsets else silent
    strokes.save(path.with_suffix(".kit"), Bank({song.key: kit}))
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            frames=power.shape[2],
            reference=pairs.level_reference(power[0]),
            times=np.array([onset.time for onset in onsets]),
            kinds=np.array([CLASSES.index(onset.kind) for onset in onsets], np.int64),
            strengths=np.array([onset.strength for onset in onsets]),
            level=told.level,
            features=told.features.astype(np.float16),
            phases=pattern_features(input, rate, true)[SOUND:].astype(np.float16),
            heard=_numbers(told.beats),
            true=_numbers(true),
        )
    return True


def _is_whole(path: Path) -> bool:
    """Whether what `prepare` writes is there and can be read; otherwise it is made again."""
    try:
        read(path)
        for kit in strokes.load(path.with_suffix(".kit")).kits.values():
            dict(kit.strokes)  # decoded
    except Exception:  # zipfile and numpy's header parser raise many types for damaged bytes
        return False
    return True


def _numbers(beats: Beats | None) -> np.ndarray:
    """Tempo and first beat, and the times of all beats where the tempo drifts; nothing without beats."""
    return np.array([] if beats is None else [beats.bpm, beats.first, *beats.at])


def _beats(numbers: np.ndarray) -> Beats | None:
    """Return what `_numbers` was given."""
    if not numbers.size:
        return None
    bpm, first, *at = numbers.tolist()
    return Beats(bpm, first, at=tuple(at))


def read(path: Path) -> Known:
    """Read what `prepare` wrote."""
    with np.load(path, allow_pickle=False) as found:
        onsets = [
            Onset(float(time), CLASSES[int(kind)], float(strength))
            for time, kind, strength in zip(found["times"], found["kinds"], found["strengths"], strict=True)
        ]
        features, level = found["features"].astype(np.float32), float(found["level"])
        heard, true = (_beats(found[name]) for name in ("heard", "true"))
        truly = np.concatenate([features[:SOUND], found["phases"].astype(np.float32)])
        return Known(
            int(found["frames"]),
            float(found["reference"]),
            onsets,
            Heard(level, heard, features),
            Heard(level, true, truly),
        )


def train_network(folder: Path, name: str, songs: Sequence[Path], config: Config, on_done: OnDone) -> Pattern:
    """Train the pattern network `name` on some songs, or go on training it, or read it if it is trained on these.

    Each song comes with the beats of its drums; the training itself makes the mistakes of beats that are heard.

    Raises:
        ValueError: the weights are not finite in the end. They are not kept.
    """
    steps, state = config.train.pattern_steps, folder / "training.safetensors"
    whose = files.digest([name, [one.name for one in songs], steps, config.train.seed])
    path = folder / f"{name}-{whose[:12]}.safetensors"
    network = Pattern()
    if trained := _stored(path):
        network.load_state_dict(trained)
        on_done("", steps)
        return network
    pairs_of = [pair_of(read(one)) for one in songs]
    before = None
    if (saved := _stored(state)) and bytes(saved.pop("whose").tolist()).decode() == whose:
        before = saved
        on_done(f"network {name}", int(before["step"]))

    def on_step(training: Training, loss: float) -> bool:
        saved = training.step % _SAVE_EVERY == 0 and training.step < steps
        if saved:
            tensors = {key: value.contiguous() for key, value in training.state().items()}
            tensors["whose"] = torch.tensor(list(whose.encode()), dtype=torch.uint8)
            files.write_bytes(state, safetensors.torch.save(tensors))
        on_done(f"network {name}, loss {loss:.3f}", 1, f"network-{path.stem}-{training.step}" if saved else "")
        return True

    network = train_pattern(pairs_of, steps, config.train.seed, before, on_step).network.cpu()
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        state.unlink(missing_ok=True)
        raise ValueError(
            f"the training of the pattern network {name!r} ended with weights that are not finite (NaN or infinite): start a "
            "new run with another --train.seed, or without --model.sketch"
        )
    files.write_bytes(path, safetensors.torch.save({key: value.contiguous() for key, value in network.state_dict().items()}))
    state.unlink(missing_ok=True)
    on_done("", 0, f"network-{path.stem}-{steps}")
    return network


def _stored(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name; none if the file is missing or damaged: they are made again."""
    try:
        found: dict[str, torch.Tensor] = safetensors.torch.load(path.read_bytes())
    except (FileNotFoundError, safetensors.SafetensorError):
        return {}
    return found


def pair_of(song: Known) -> Song:
    """Return what a pattern network learns from a song. The features are float16, as they are kept: half the memory."""
    features = song.true.features
    return features.astype(np.float16), drum_classes.activations(song.onsets, features.shape[1], FRAME)


def bank_of(songs: Sequence[Path]) -> Bank:
    """Join the kits of the songs that have drums, at most `KITS` of them, evenly chosen."""
    kits = [strokes.load(path.with_suffix(".kit")).kits for path in songs]
    # A kit of one class would leave out all others.
    classes = [sum(map(bool, kit.strokes.values())) for one in kits for kit in one.values()]
    usable = [one for one, count in zip(kits, classes, strict=True) if count >= min(2, max(classes)) > 0]
    if not usable:
        raise ValueError(
            "no training song has strokes of drums that could be cut, at least none that --train.kits names: name others "
            "there, or train without model.sketch"
        )
    chosen = np.unique(np.linspace(0, len(usable) - 1, min(KITS, len(usable))).round().astype(int))
    return Bank({name: kit for number in chosen for name, kit in usable[number].items()})


def sketch_song(
    folder: Path, song: KeyedSong, path: Path, config: Config, rates: np.ndarray, weights: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Sketch a training song in all variants, with its own kit, at its own level; return its entry in guides.json."""
    known = read(path)
    (kit,) = strokes.load(path.with_suffix(".kit")).kits.values()
    variants = []
    for number in range(guides.variants_of(config.train)):
        random = random_for("sketch", config.data.seed, song.key, number)
        if number < guides.TRUE:
            beats, played = known.true.beats, list(_changed(known.onsets, random))
        else:
            network = Pattern()
            network.load_state_dict(weights)
            beats = known.heard.beats
            played = choose_strokes(predict(network, known.heard.features), rates, beats, config.model)
        level, among = known.heard.level + kit.offset, 1.0 if number < guides.TRUE else LOUDEST
        sketch = Sketch(played, kit, config.data.sample_rate, level, int(random.integers(1 << 31)), among)
        guide = Guide(sketch, beats, known.reference, config.data, config.model)
        begins = range(0, known.frames, _AT_ONCE)
        variants.append(np.concatenate([guide.rows(begin, min(_AT_ONCE, known.frames - begin)) for begin in begins]))
    return guides.write_song(folder, song.key, variants)


def _changed(onsets: Sequence[Onset], random: np.random.Generator) -> Iterator[Onset]:
    """Change true strokes as a prediction may be wrong: some are left out, all are louder or quieter."""
    for onset in onsets:
        louder = float(np.exp(random.normal(0, _LOUDER)))
        if random.random() >= _DROPPED:
            yield Onset(onset.time, onset.kind, min(onset.strength * louder, 1.0))


def _one_thread() -> None:
    torch.set_num_threads(1)

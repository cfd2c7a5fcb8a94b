"""Every checkpoint of a run on held-out songs: measures beside their baselines, sound, pictures.

evaluations/references/            for each song: input, true stem and ceiling as flac, and the baselines' measures
evaluations/step-00012000/         metrics.json, audio/SONG-{stem,mix}.flac, spectrograms/SONG.png
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from p2p_dist import console, files
from p2p_dist.audio.beats import Beats, track
from p2p_dist.audio.spectrogram import power_to_db
from p2p_dist.audio.stems import mono
from p2p_dist.config import Config
from p2p_dist.data import pairs
from p2p_dist.data.index import read_manifest
from p2p_dist.evaluate import generate, metrics, onsets, picture
from p2p_dist.rundir import RunDir, attempt, is_evaluation
from p2p_dist.train import checkpoint

REFERENCE_SOUNDS = ("input", "target", "ceiling", "true-mix")

SHOWN = ("lock8", "f1t_beyond_chance", "mmd", "level_error")
"""The measures that a progress line has room for."""


@dataclass(frozen=True)
class Excerpt:
    """The part of a held-out song that is evaluated.

    input, target: (samples, channels) at `rate`. pictures: its windows, cut from those of the whole song.
    gain: all its sound files are scaled by it, so that none clips and they compare.
    beats: of the true stem over the whole song, in seconds from where the excerpt begins.
    """

    name: str
    key: str
    rate: int
    begins: float
    input: np.ndarray
    target: np.ndarray
    pictures: pairs.Pictures
    gain: float
    beats: Beats | None


def evaluate(run: RunDir, config: Config) -> int:
    """Evaluate the checkpoints that have no evaluation yet, oldest first; several processes share them, each takes the next.

    Returns:
        how many were evaluated by this process.

    Raises:
        ValueError: no held-out song, no checkpoint, or a damaged one.
    """
    found = [c for c in checkpoint.find(run.checkpoints) if (c.path / checkpoint.GENERATOR).is_file()]
    if not found:
        raise ValueError(f"no checkpoint in {run.checkpoints}: train first")
    todo = [c for c in found if not is_evaluation(run.evaluations / c.path.name)]
    rank, alone = int(os.environ.get("RANK", "0")), os.environ.get("WORLD_SIZE", "1") == "1"
    if alone:  # else it may be what another process is just writing
        files.remove_garbage(run.evaluations)
    excerpts = held_out(run.shards, config)
    references = refer(run.evaluations / "references", excerpts, config)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    mine = 0
    with console.Progress("evaluate", len(todo), status=run.status if rank == 0 else None) as progress:
        for done, item in enumerate(todo, 1):
            if not alone and not claim(run, item.path.name):
                continue
            try:
                weights = checkpoint.load_generator(item)
            except FileNotFoundError:
                continue  # a training that runs beside has removed it
            mine += 1
            shutil.rmtree(run.evaluations / item.path.name, ignore_errors=True)  # what is left of one that lost files
            generator = generate.load(weights, config, device)
            with files.new_folder(run.evaluations / item.path.name) as folder:
                mean = _evaluate_one(folder, item.step, generator, excerpts, references, config)
            progress.update(done, f"step {item.step}" + "".join(f", {n} {v:.3g}" for n in SHOWN if (v := mean[n]) is not None))
    return mine


def claim(run: RunDir, name: str) -> bool:
    """Take one checkpoint for this process, before any other of the same attempt does.

    The claims of an attempt that ended count for nothing in the next, so what it left half done is taken anew.
    """
    folder = run.evaluations / "claims" / attempt()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _evaluate_one(
    folder: Path, step: int, generator: Any, excerpts: list[Excerpt], references: dict[str, Any], config: Config
) -> dict[str, float | None]:
    rows: list[metrics.Measured] = []
    songs = []
    for excerpt in excerpts:
        outputs = generate.generate(generator, excerpt.pictures, config, excerpt.key)
        stem = generate.to_stem(outputs, excerpt.pictures, excerpt.input, excerpt.rate, config)
        rows.append(metrics.measure(stem, excerpt.target, excerpt.input, excerpt.rate, excerpt.beats))
        write_sound(folder / "audio" / f"{excerpt.key}-stem.flac", stem, excerpt)
        write_sound(folder / "audio" / f"{excerpt.key}-mix.flac", excerpt.input + stem, excerpt)
        shown = {"input": excerpt.input, "true stem": excerpt.target, "generated stem": stem}
        _draw(folder / "spectrograms" / f"{excerpt.key}.png", shown, excerpt, config)
        songs.append({"name": excerpt.name, "key": excerpt.key, "output": rows[-1].row, **references["songs"][excerpt.key]})
    real = [np.array(references["real"][excerpt.key]).reshape(-1, 41) for excerpt in excerpts]
    mean = {"output": metrics.mean(rows, real), **references["mean"]}
    files.write_json(folder / "metrics.json", {"step": step, "songs": songs, "mean": mean})
    return mean["output"]


def held_out(dataset: Path, config: Config) -> list[Excerpt]:
    """The evaluated parts of the held-out songs, from the sound in the shards.

    Raises:
        ValueError: there is none.
    """
    split = config.evaluate.split
    part = read_manifest(dataset)["splits"].get(split)
    if part is None:
        raise ValueError(
            f"{dataset} has no {split} songs: evaluation needs some that training does not see; put them into {split}/"
        )
    excerpts = []
    sounds = {shard["name"] for shard in part["audio"]}  # ready-made pairs have none
    heard = [song for song in part["songs"] if f"audio-{split}-{song['key']}.tar" in sounds]
    for song in heard[: config.evaluate.songs]:
        input, target, rate = read_sound(dataset / f"audio-{split}-{song['key']}.tar", song["key"])
        pictures = generate.loudest_part(pairs.make(input, target, rate, config.data), config.evaluate.seconds, config)
        # From frames of the spectrogram to samples of the song.
        ratio = config.data.hop_length * rate / config.data.sample_rate
        begin = round(int(pictures.starts[0]) * ratio)
        end = min(begin + round((pictures.frames - int(pictures.starts[0])) * ratio), len(input))
        beats = track(onsets.envelope(onsets.mel(mono(target, rate, onsets.RATE))), onsets.FRAME)
        if beats is not None:
            beats = Beats(beats.bpm, (beats.first - begin / rate) % (60 / beats.bpm))
        input, target = input[begin:end], target[begin:end]
        peak = max(1.0, *(float(np.abs(sound).max()) for sound in (input, target, input + target)))
        # A model's mix can be louder than the true one: leave it 3 dB.
        excerpts.append(Excerpt(song["name"], song["key"], rate, begin / rate, input, target, pictures, 0.7 / peak, beats))
    return excerpts


def read_sound(shard: Path, key: str) -> tuple[np.ndarray, np.ndarray, int]:
    """A held-out song's input and target, each (samples, channels), and their rate, from its shard."""
    sounds = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                opened = archive.extractfile(member)
                assert opened is not None
                sounds[member.name.removeprefix(key + ".")] = opened.read()
    except (tarfile.TarError, FileNotFoundError) as error:
        raise ValueError(
            f"{shard} is missing or damaged ({error}): type the launch command again, it makes the shard anew"
        ) from error
    gain = json.loads(sounds["json"])["gain"]
    input, rate = soundfile.read(io.BytesIO(sounds["input.flac"]), dtype="float32", always_2d=True)
    target, _ = soundfile.read(io.BytesIO(sounds["target.flac"]), dtype="float32", always_2d=True)
    return input * np.float32(gain), target * np.float32(gain), rate


def refer(folder: Path, excerpts: list[Excerpt], config: Config) -> dict[str, Any]:
    """The baselines and the ceiling of the same songs: sound and measures, made once a run."""
    path = folder / "metrics.json"
    if path.is_file():
        found = files.read_json(path)
        sounds = [folder / "audio" / f"{excerpt.key}-{name}.flac" for excerpt in excerpts for name in REFERENCE_SOUNDS]
        if sorted(found["songs"]) == sorted(excerpt.key for excerpt in excerpts) and all(s.is_file() for s in sounds):
            return dict(found)
    rows: dict[str, list[metrics.Measured]] = {name: [] for name in metrics.BASELINES}
    songs: dict[str, Any] = {}
    real: dict[str, Any] = {}
    for excerpt in excerpts:
        pictures = excerpt.pictures
        stems = {
            "copy the input": excerpt.input,
            "silence": np.zeros_like(excerpt.input),
            "ceiling": generate.to_stem(pictures.targets, pictures, excerpt.input, excerpt.rate, config),
        }
        for name, stem in stems.items():
            rows[name].append(metrics.measure(stem, excerpt.target, excerpt.input, excerpt.rate, excerpt.beats))
        truth = metrics.measure(excerpt.target, excerpt.target, excerpt.input, excerpt.rate, excerpt.beats)
        real[excerpt.key] = truth.described.tolist()
        measured = {name: rows[name][-1].row for name in stems}
        songs[excerpt.key] = {**measured, "begins": excerpt.begins, "seconds": len(excerpt.input) / excerpt.rate}
        sounds_made = (excerpt.input, excerpt.target, stems["ceiling"], excerpt.input + excerpt.target)
        for name, sound in zip(REFERENCE_SOUNDS, sounds_made, strict=True):
            write_sound(folder / "audio" / f"{excerpt.key}-{name}.flac", sound, excerpt)
    described = [np.array(part).reshape(-1, 41) for part in real.values()]
    result = {"songs": songs, "mean": {name: metrics.mean(part, described) for name, part in rows.items()}, "real": real}
    files.write_json(path, result)
    return result


def write_sound(path: Path, sound: np.ndarray, excerpt: Excerpt) -> None:
    """Write flac of 24 bits at the song's own rate and channels, scaled by the excerpt's gain."""
    with files.replacing(path) as temporary:
        clipped = np.clip(sound * np.float32(excerpt.gain), -1, 1)
        soundfile.write(temporary, clipped, excerpt.rate, format="FLAC", subtype="PCM_24")


def _draw(path: Path, shown: dict[str, np.ndarray], excerpt: Excerpt, config: Config) -> None:
    reference = pairs.level_reference(pairs.mel_of(excerpt.input, excerpt.rate, config.data))
    panels = {n: power_to_db(pairs.mel_of(s, excerpt.rate, config.data), reference) for n, s in shown.items()}
    picture.draw(path, panels, config.data)

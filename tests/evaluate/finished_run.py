"""A small evaluated run with real sound, as evaluate/checkpoints.py leaves it, but for spectrograms: nothing reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import soundfile

from p2p_dist.audio import flac
from p2p_dist.common import files
from p2p_dist.data import manifest as manifests
from p2p_dist.evaluate.measures.kinds import Row
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.run.rundir import RunDir, step_name
from p2p_dist.settings import config, presets
from p2p_dist.settings.config import Config

RATE = 22050
BEGIN = 1356077
"""Samples of every song before its excerpt: 61.5 s and two samples."""
HOSTILE = 'Dawn & "Dusk" </script><script>document.title = "broken"</script>'


def make(
    folder: Path,
    songs: dict[str, str],
    steps: tuple[int, ...] = (30, 60, 90),
    seconds: float = 4.0,
    root: str | None = None,
    gains: dict[int, float] | None = None,
    recorded: bool = True,
) -> tuple[RunDir, Config]:
    """Write the run `folder` with `songs` (key -> name); every step's drums are nearer to the true ones.

    The measures are made up, but differ from one another; of the first song, onset F1 could not be measured.

    Args:
        gains: dB of the sound files of each step, by its place from 1; 0 are the references. Default: none is turned down.
        recorded: as of schema 3; else as of 1, which scaled all by 0.7 and did not say so.
    """
    gains = gains or {}
    schema = {"schema": 3} if recorded else {}
    run = RunDir(folder)
    settings = presets.from_yaml(_yaml(folder, {"preset": "demo", "data": {"root": root}}))
    files.write_text(run.config, presets.to_yaml(settings))
    rows = [{"step": step, "epoch": step / 4, "l1": 0.3 / (1 + step / 20) + 0.02} for step in range(5, max(steps) + 1, 5)]
    files.write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    sounds = {key: _sounds(number, seconds) for number, key in enumerate(songs)}
    fixed: dict[str, Any] = {
        "copy the input": {"lock8": 0.31, "level_error": 6.0, "stem_l1": 14.61, "mix_l1": 6.27, "onset_f1": 0.41},
        "silence": {"lock8": 0.0, "stem_l1": 21.35, "mix_l1": 5.52, "onset_f1": 0.0},
        "ceiling": {"lock8": 0.98, "level_error": 0.2, "stem_l1": 2.15, "mix_l1": 1.13, "onset_f1": 0.96},
    }
    absent = {name: {"level_error": "the stem is silent"} if name == "silence" else {} for name in fixed}
    split = config.Evaluate().split
    rows = {name: {"mean": row, "interval": {}, "absent": absent[name]} for name, row in fixed.items()}
    missing = {"same song, far away": "the song is shorter than 40 s"}
    place = {"begins": BEGIN / RATE, "seconds": seconds}
    if recorded:
        place |= {"begin_sample": BEGIN, "samples": int(seconds * RATE), "sample_rate": RATE}
    places = {"split": split, **place, "rows": fixed, "absent": absent, "missing": missing}
    if recorded:
        places |= {**_gain(gains.get(0, 0.0)), "unrecorded_gain_db": -3.1}
    distance = {"distance": {"songs": len(songs), "windows": 5, "real": 7, "floor": None}} if recorded else {}
    baselines = {
        **schema,
        "songs": {key: {"name": name, **places} for key, name in songs.items()},
        "splits": {split: {"songs": len(songs), "rows": rows, "missing": missing, **distance}},
    }
    files.write_json(run.evaluations / "baselines.json", baselines)
    files.write_json(run.dataset, {"name": "pictures"})
    sha256 = "0" * 64
    windows = [[f"00000-song-{n:05d}", "train-00000-song.tar", 0, 0, 0] for n in range(40)]
    part = {
        "songs": [{"name": "song", "key": "00000-song", "seconds": 60.0}],
        "shards": [{"name": "train-00000-song.tar", "bytes": 0, "sha256": sha256, "samples": 40}],
        "audio": [],
        "samples": windows,
    }
    about = {"settings": {}, "settings_digest": "", "dtype": "<f2", "shape": [1, 32, 32], "left_out": []}
    manifests.write(run.shards, {"schema": manifests.SCHEMA, **about, "splits": {"train": part}})
    references = run.evaluations / "references"
    for key, (heard, drums) in sounds.items():
        for name, sound in {"input": heard, "target": drums, "ceiling": 0.9 * drums, "true-mix": heard + drums}.items():
            _write(references / "audio" / f"{key}-{name}.flac", sound, gains.get(0, 0.0) if recorded else None)
    for number_of_step, step in enumerate(steps, 1):
        (run.checkpoints / step_name(step)).mkdir(parents=True)
        tensors = {"up.weight": np.zeros((3, 5), np.float32), "up.bias": np.zeros(7, np.float32)}
        safetensors.numpy.save_file(tensors, run.checkpoints / step_name(step) / "generator.safetensors")
        folder, content = run.evaluations / step_name(step), []
        gain = gains.get(number_of_step, 0.0) if recorded else None
        for number, key in enumerate(songs):
            heard, drums = sounds[key]
            share = number_of_step / len(steps)
            stem = share * drums + (1 - share) * 0.05 * np.random.default_rng(step).standard_normal(drums.shape)
            _write(folder / "audio" / f"{key}-stem.flac", stem, gain)
            _write(folder / "audio" / f"{key}-mix.flac", heard + stem, gain)
            row = {
                "lock8": 0.9 * share - 0.3,
                "level_error": 12 - 9 * share,
                "stem_l1": 20 - 9 * share + number,
                "mix_l1": 6 - 2 * share,
                "onset_f1": 0.8 * share if number else None,
            }
            why = {} if number else {"onset_f1": "the true stem has no onset"}
            where = {**place, **_gain(gain)} if gain is not None else {}
            content.append({"name": songs[key], "key": key, **where, "output": row, "absent": why})
        mean = _mean([song["output"] for song in content])
        interval = {"level_error": [mean["level_error"] - 1, mean["level_error"] + 2]}
        whole = {"mean": mean, "interval": interval, "absent": {"mmd": "it needs 8 windows"}}
        files.write_json(folder / "metrics.json", {**schema, "step": step, "songs": content, "splits": {split: whole}})
    return run, settings


def _yaml(folder: Path, value: dict[str, Any]) -> Path:
    path = folder / "asked.yaml"
    files.write_text(path, json.dumps(value))
    return path


def _sounds(number: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Chords and, twice a second, a hit of noise; (samples, 2)."""
    times = np.arange(int(seconds * RATE)) / RATE
    tones = [110 * 2 ** ((note + 3 * number) / 12) for note in (0, 4, 7)]
    heard = sum(0.1 * np.sin(2 * np.pi * tone * times) for tone in tones) * (0.6 + 0.4 * np.cos(np.pi * times))
    drums = 0.4 * np.random.default_rng(number).standard_normal(len(times)) * np.exp(-18 * (times % 0.5))
    return np.stack([heard, heard], 1), np.stack([drums, drums], 1)


def _mean(rows: list[Row]) -> Row:
    known = {name: [value for row in rows if (value := row.get(name)) is not None] for name in MEASURES}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def _gain(decibels: float) -> dict[str, float]:
    return {"gain_db": decibels, "gain": flac.factor(decibels)}


def _write(path: Path, sound: np.ndarray, gain: float | None) -> None:
    """gain: dB; None as of schema 1."""
    if gain is not None:
        flac.write(path, sound.astype(np.float32), RATE, 24, BEGIN, gain)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(0.7 * sound, -1, 1), RATE, format="FLAC", subtype="PCM_24")

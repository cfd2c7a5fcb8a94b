"""Part 4: evaluation on the device, and a real training of the preset `default`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gpu_parts import runs
from gpu_parts.common import Measurement, Place, Row, config_of, spread

SECONDS = 30.0
"""Of a song, as evaluation takes it."""


def measurements(place: Place) -> list[Measurement]:
    title, song = "A training of the preset `default`", "A song through `generate`, preset `plain`"
    again = runs.lacking() or ("it is the same here" if place.small else "")
    return [
        Measurement("songs", lambda: songs(place), f"From pictures to sound: {SECONDS:.0f} s of song", 60),
        Measurement("whole song", lambda: whole_song(place, place.kind), song, 90, "song", 20, runs.lacking()),
        Measurement("training", lambda: training(place), title, 300, "", 60, runs.lacking()),
        Measurement("whole song, by the processor", lambda: whole_song(place, "cpu"), song, 150, "song", 60, again),
    ]


def songs(place: Place) -> Iterator[Row]:
    """Generating and Griffin-Lim on the device, against the processor; both as evaluation does it, but for the device."""
    place.begin()
    from p2p_dist.audio import invert
    from p2p_dist.generate.inference import generate
    from p2p_dist.generate.phase import griffin_lim_on
    from p2p_dist.model.generator import Generator

    config = config_of("plain", place)
    data = config.data
    seconds = 3.0 if place.small else SECONDS
    frames = int(seconds * data.sample_rate / data.hop_length)
    starts = np.arange(0, max(1, frames - data.frames), data.window_hop)
    random = np.random.default_rng(0)
    shape = (len(starts), 1, data.mels, data.frames)
    pictures: Any = SimpleNamespace(inputs=(-60 + 40 * random.random(shape)).astype(np.float16), starts=starts)
    samples, iterations = int(seconds * data.sample_rate), 4 if place.small else config.evaluate.iterations
    magnitude = random.random((data.n_fft // 2 + 1, frames)).astype(np.float32)
    devices = [torch.device("cpu")] + ([place.device] if place.kind == "cuda" else [])
    totals: dict[str, float] = {}
    for device in devices:
        torch.set_num_threads(1 if place.small else 16)
        generator = Generator(config.model, 1).to(device)
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            generate(generator, pictures, data, "song")
            took.append(time.perf_counter() - begun)
        totals[device.type] = spread(took)["median"]
        yield {"what": "generate", "device": device.type, "seconds": totals[device.type], "songs a minute": 60 / min(took)}
    begun = time.perf_counter()
    true = invert.griffin_lim(magnitude, data.n_fft, data.hop_length, samples, iterations)
    took_s = time.perf_counter() - begun
    yield {"what": "Griffin-Lim, ours (scipy)", "device": "cpu", "seconds": took_s, "songs a minute": 60 / took_s}
    for device in devices:
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            found = griffin_lim_on(device, magnitude, data.n_fft, data.hop_length, samples, iterations)
            took.append(time.perf_counter() - begun)
        errors = [misses(sound, magnitude, data.n_fft, data.hop_length) for sound in (true, found)]
        row: Row = {"what": "Griffin-Lim, torch", "device": device.type, "seconds": spread(took)["median"]}
        row |= {"songs a minute": 60 / min(took), "it misses": errors[1], "scipy's misses": errors[0]}
        yield row | {"apart": float(np.linalg.norm(found - true) / np.linalg.norm(true))}


def whole_song(place: Place, device: str) -> Iterator[Row]:
    """A song of four minutes as `launch/generate.py` makes it, page and MIDI too: seconds of work a second of song."""
    script = Path(__file__).resolve().parents[1] / "generate.py"
    minutes = "0.1" if place.small else "4"
    to = place.scratch / f"generate-{device}.json"
    words = [sys.executable, str(script), "--preset", "plain", "--minutes", minutes, "--json", str(to)]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    subprocess.run(words, env={**os.environ, **hidden}, check=True)
    ((name, found),) = json.loads(to.read_text()).items()
    row: Row = {"song": name, "device": device, "s/s": (found["all"] + found["page"]) / found["song"]}
    row |= {part: found[part] / found["song"] for part in ("network", "phase", "page")}
    yield row | {"peak MiB of the host": found["peak_mib"]}


def misses(sound: np.ndarray, magnitude: np.ndarray, n_fft: int, hop: int) -> float:
    """Relative error of the magnitudes that the sound has."""
    from p2p_dist.audio import invert

    found = np.abs(invert.stft(sound, n_fft, hop)).T
    frames = min(found.shape[1], magnitude.shape[1])
    wanted = magnitude[:, :frames]
    return float(np.linalg.norm(found[:, :frames] - wanted) / np.linalg.norm(wanted))


def training(place: Place) -> Iterator[Row]:
    """Through the launcher, on the songs named by --data, else on the example song: its losses and its table."""
    data = place.data
    if data is None:
        data = place.scratch / "songs"
        from p2p_dist.audio import musdb18

        for split in ("train", "test"):
            (data / split).mkdir(parents=True)
            (data / split / musdb18.EXCERPT).symlink_to(musdb18.excerpt_file())
        yield {"what": "songs", "value": "the example song alone, trained and tested on: it proves the way, not the music"}
    steps = 20 if place.small else 400
    words = ("submit.py", "--cluster", "local", "--data", str(data), "--run", "default", "--train.steps", str(steps))
    words += ("--train.epochs", "None", "--train.checkpoint-every", str(steps // 2), "--train.log-every", str(steps // 20))
    words += ("--preset", "tiny") if place.small else ()
    if place.data is None:  # the song that is tested is the one that is trained on: only if that is said
        words += ("--train.global-batch-size", "4", "--train.keep-every", "100", "--evaluate.allow-overlap")
    code, said, seconds = runs.launch(place, *words)
    folder = place.scratch / "runs" / "default"
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").is_file() else []
    for line in (lines[0], lines[len(lines) // 2], lines[-1]) if lines else ():
        row = json.loads(line)
        shown = {name: row[name] for name in ("step", "l1", "generator", "discriminator", "images_per_second", "data_wait")}
        yield {"what": "training", **shown}
    assert code == 0, f"exit code {code}"
    yield {"what": "songs to page", "value": f"{seconds:.0f} s, exit code 0"}
    _, said, _ = runs.launch(place, "evaluate.py", "default")
    for line in said.splitlines():
        if line.startswith("| "):
            yield {"what": "table", "value": line.replace("|", "/")}

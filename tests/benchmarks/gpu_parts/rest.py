"""Part 4: evaluation on the device, and a real training of the preset `default`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gpu_parts import runs
from gpu_parts.common import Measurement, Place, Row, config_of, spread

SECONDS = 30.0
"""Of a song, as evaluation takes it."""


def measurements(place: Place) -> list[Measurement]:
    title = "A training of the preset `default`"
    skipped = runs.lacking() or ("its networks are too large for a CPU" if place.small else "")
    return [
        Measurement("songs", lambda: songs(place), f"From pictures to sound: {SECONDS:.0f} s of song", 60),
        Measurement("training", lambda: training(place), title, 300, "", 25, skipped),
    ]


def songs(place: Place) -> Iterator[Row]:
    """Generating and Griffin-Lim on the device, against the processor; both as evaluation does it, but for the device."""
    place.begin()
    from p2p_dist.audio import invert
    from p2p_dist.generate.inference import generate
    from p2p_dist.model.generator import Generator

    config = config_of("default", place)
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
            found = griffin_lim(magnitude, data.n_fft, data.hop_length, samples, iterations, device)
            took.append(time.perf_counter() - begun)
        errors = [misses(sound, magnitude, data.n_fft, data.hop_length) for sound in (true, found)]
        row: Row = {"what": "Griffin-Lim, torch", "device": device.type, "seconds": spread(took)["median"]}
        yield {**row, "songs a minute": 60 / min(took), "it misses": errors[1], "ours misses": errors[0]}


def griffin_lim(magnitude: np.ndarray, n_fft: int, hop: int, samples: int, iterations: int, device: torch.device) -> np.ndarray:
    """`audio.invert.griffin_lim` in torch: what it would be on the device."""
    window = torch.hann_window(n_fft, device=device)
    target = torch.from_numpy(magnitude).to(device)
    phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.T.shape)).astype(np.complex64)
    angles = torch.from_numpy(phase.T.copy()).to(device)
    previous = torch.zeros_like(angles)
    for _ in range(iterations):
        sound = torch.istft(target * angles, n_fft, hop, window=window)
        rebuilt = torch.stft(sound, n_fft, hop, window=window, return_complex=True, pad_mode="constant")[:, : target.shape[1]]
        ahead = rebuilt - 0.99 / 1.99 * previous[:, : rebuilt.shape[1]]
        angles = torch.zeros_like(angles)
        angles[:, : ahead.shape[1]] = ahead / ahead.abs().clamp_min(1e-12)
        previous = torch.zeros_like(previous)
        previous[:, : rebuilt.shape[1]] = rebuilt
    return torch.istft(target * angles, n_fft, hop, window=window).cpu().numpy()


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
        from p2p_dist.audio import layouts

        for split in ("train", "test"):
            (data / split).mkdir(parents=True)
            (data / split / layouts.EXCERPT).symlink_to(layouts.excerpt_file())
        yield {"what": "songs", "value": "the example song alone, trained and tested on: it proves the way, not the music"}
    words = ("submit.py", "--cluster", "local", "--data", str(data), "--run", "default", "--train.steps", "400")
    words += ("--train.epochs", "None", "--train.checkpoint-every", "200", "--train.log-every", "20")
    if place.data is None:
        words += ("--train.global-batch-size", "4", "--train.keep-every", "100")
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

"""A run with a checkpoint to generate with, and songs of all kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from p2p_dist.model.generator import Generator
from p2p_dist.run.rundir import RunDir
from p2p_dist.train import checkpoint
from tests.conftest import lay_out_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run `band`: a tiny network that heard nothing yet; it makes some noise."""
    place = tmp_path_factory.mktemp("generate")
    run, settings = lay_out_run(place, place, "band")
    torch.manual_seed(0)
    weights = Generator(settings.model).state_dict()
    weights["last.1.bias"] -= 0.4  # not louder than the song
    checkpoint.save(run.checkpoints, 20, {"step": 20}, weights, {})
    return run


@pytest.fixture
def runs(run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunDir:
    """The same, in the folder of runs; what is made comes below the current folder, which is empty."""
    monkeypatch.setenv("P2P_RUNS", str(run.path.parent))
    monkeypatch.chdir(tmp_path)
    return run


def sound(seconds: float = 1.3, rate: int = 22050, channels: int = 2, level: float = 0.1) -> np.ndarray:
    """Chords, other ones on each channel; float64 (samples, channels) in whole steps of 24 bits."""
    time = np.arange(round(seconds * rate)) / rate
    tones = [sum(np.sin(2 * np.pi * tone * (1 + number / 10) * time) for tone in (110, 164, 220)) for number in range(channels)]
    return np.rint(np.stack(tones, axis=1) * level * 2**23) / 2**23


def write(path: Path, samples: np.ndarray, rate: int = 22050, subtype: str | None = "PCM_24") -> Path:
    """Write a sound file; its suffix tells the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".aiff": "AIFF"}.get(path.suffix)
    soundfile.write(path, samples, rate, subtype=subtype, format=kind)
    return path

"""Songs made on the spot: short, different in every stem, laid out like MUSDB18-HQ."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.data import manifest as manifests
from p2p_dist.data import remote, shards
from p2p_dist.data.index import Index
from p2p_dist.settings.config import STEMS, Data
from tests.data.server import Server

SMALL = Data(sample_rate=22050, n_fft=1024, hop_length=256, mels=32, frames=32, window_hop=16)


def song_sound(seconds: float, rate: int = 22050, channels: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Four stems of decaying tones, float32 (samples, channels), together below full scale."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = {}
    for number, name in enumerate(STEMS):
        tone = np.sin(2 * np.pi * random.uniform(60, 2000) * time) * np.exp(-4 * (time % (0.2 + 0.1 * number)))
        noise = random.normal(0, 0.01, (len(time), channels))
        sound[name] = (0.15 * tone[:, None] * random.uniform(0.5, 1, channels) + noise).astype(np.float32)
    return sound


def write_song(folder: Path, seconds: float = 1.5, rate: int = 22050, channels: int = 2, seed: int = 0) -> Path:
    """One song as four wav files of 16 bits in `folder`."""
    folder.mkdir(parents=True)
    for name, samples in song_sound(seconds, rate, channels, seed).items():
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="PCM_16")
    return folder


@pytest.fixture
def new_song() -> Callable[..., Path]:
    """`write_song`, for tests that lay songs out by themselves."""
    return write_song


@pytest.fixture(scope="session")
def small() -> Data:
    """Settings for small pictures."""
    return SMALL


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs to train on, one whose title holds it out for validation (M), one to test with."""
    root = tmp_path_factory.mktemp("songs")
    for number, name in enumerate(("train/A", "train/C", "train/M", "test/D")):
        write_song(root / name, seconds=1.5 + 0.4 * number, seed=number)
    return root


@pytest.fixture(scope="session")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of `songs`, made by one worker. To be read only."""
    out = tmp_path_factory.mktemp("dataset") / "made"
    assert shards.preprocess(songs, out, SMALL, workers=1) == []
    return out


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """A copy of `dataset`, to be harmed."""
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def shard_of(out: Path, title: str, split: str = "train") -> Path:
    """The shard of the pairs of a song."""
    part = manifests.read(out)["splits"][split]
    (key,) = (song["key"] for song in part["songs"] if song["name"] == title)
    (name,) = (shard["name"] for shard in part["shards"] if key in {song[0] for song in shard["songs"]})
    return out / str(name)


def as_schema_3(out: Path, split: str) -> None:
    """Give a split of a dataset the rows that a manifest of schema 3 has."""
    manifest, found = manifests.read(out), Index(out, split)
    part = manifest["splits"][split]
    for shard in (*part["shards"], *part["audio"]):
        del shard["songs"]
    del part["index"]
    part["samples"] = [list(dataclasses.astuple(found.sample(number))) for number in range(len(found))]
    manifests.write(out, {**manifest, "schema": 3})


def fingerprint(out: Path) -> dict[str, str]:
    """sha256 of all that a dataset is: shards, manifest, card."""
    found = (path for path in (*out.iterdir(), *out.glob("audio/*")) if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture
def served(songs: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A dataset of two shards to train on, served on the loopback."""
    monkeypatch.setattr(remote, "PAUSES", (0.0,))
    shards.preprocess(songs, tmp_path / "there", dataclasses.replace(small, shard_size=0.01), workers=1)
    with Server(tmp_path / "there") as server:
        yield server

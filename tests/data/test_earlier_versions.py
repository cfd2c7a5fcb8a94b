"""Datasets that earlier versions made stay, and can be given today's index."""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.cli import preprocess
from p2p_dist.common import console
from p2p_dist.data import earlier_versions, shards
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.data.verify import verify_dataset
from p2p_dist.evaluate.held_out_songs import from_shards
from p2p_dist.settings.config import Data
from tests.data.conftest import fingerprint

OLD = Path(__file__).parents[1] / "golden" / "shards-v1"
DATA = Data(sample_rate=22050, n_fft=1024, hop_length=256, mels=32, frames=32, window_hop=16)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_converted_dataset_gives_the_same_batches(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preprocess.main(["--convert", str(old)]) == console.DONE
    assert "39 samples" in capsys.readouterr().out
    content = manifests.read(old)
    assert (content["schema"], content["order"]) == (4, "sorted")
    assert verify_dataset(old) == verify_dataset(OLD) == 39
    assert set(old.glob("*.tar")) == {old / path.name for path in OLD.glob("t*.tar")} | set(old.glob("valid-*.tar"))
    for split in ("train", "valid", "test"):
        before, after = Index(OLD, split), Index(old, split)
        assert before.samples.digest == after.samples.digest
        assert [before.sample(n) for n in range(len(before))] == [after.sample(n) for n in range(len(after))]
        assert [after.byte_range(n) for n in range(len(after))] == [before.byte_range(n) for n in range(len(before))]
        for step in (0, 5, 9):
            digests = {Stream(one, DATA, seed=3, global_batch_size=4).keys_digest(step) for one in (before, after)}
            assert len(digests) == 1
        for song in (part["key"] for part in content["splits"][split]["songs"]):
            assert before.samples.originals_of(song) == after.samples.originals_of(song)
        for one, other in zip(from_shards(OLD, split, 9), from_shards(old, split, 9), strict=True):
            assert one.key == other.key and np.array_equal(one.read()[0], other.read()[0])
    with pytest.raises(ValueError, match="already has the current schema 4"):
        earlier_versions.convert(old)
    lost = [old / path.name for path in (old / "audio").iterdir()]  # as if it had been killed before its end
    for path in lost:
        shutil.copy(old / "audio" / path.name, path)
    assert lost and earlier_versions.convert(old) == 39 and not any(path.exists() for path in lost)
    assert verify_dataset(old) == 39


def test_of_two_conversions_at_once_the_second_finds_it_done(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one ends while the second waits for the lock."""
    real = fcntl.flock

    def waits(descriptor: int, kind: int) -> None:
        monkeypatch.undo()
        earlier_versions.convert(old)
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", waits)
    with pytest.raises(ValueError, match="already has the current schema 4"):
        earlier_versions.convert(old)
    assert verify_dataset(old) == 39


def test_without_locks_it_says_where_to_convert(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="copy the dataset to a local disk") as raised:
        earlier_versions.convert(old)
    assert raised.value.filename == str(old)


def test_a_damaged_dataset_is_not_converted(old: Path) -> None:
    shard = next(old.glob("train-*.tar"))
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    before = fingerprint(old)
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        earlier_versions.convert(old)
    assert fingerprint(old) == before


@pytest.mark.parametrize("name", ["some-window", "unlisted-00000"])
def test_keys_made_by_hand_are_not_converted(old: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key can be read by its row in a manifest of schema 3, but not be made from a song and a window."""
    content = manifests.read(old)
    content["splits"]["train"]["samples"][0][0] = name
    shard = old / content["splits"]["train"]["samples"][0][1]
    before = Index(old, "train").sample(0).key
    assert len(name) <= len(before)
    monkeypatch.setattr(earlier_versions, "verify_dataset", lambda _: 0)
    honest = earlier_versions.index.index_shard
    rows = [{**row, "key": name if row["key"] == before else row["key"]} for row in honest(shard)]
    monkeypatch.setattr(earlier_versions.index, "index_shard", lambda path: rows if path == shard else honest(path))
    manifests.write(old, content)
    kept = fingerprint(old)
    with pytest.raises(ValueError, match=f"the sample {name} has no key that this program made"):
        earlier_versions.convert(old)
    assert fingerprint(old) == kept


@pytest.fixture
def as_before(songs: Path, small: Data, tmp_path: Path) -> Path:
    """A folder of a user's own in which an earlier version made these songs, as far as its manifest and records tell."""
    out = tmp_path / "own"
    shards.preprocess(songs, out, small, workers=1)
    content = manifests.read(out)
    manifests.write(out, {**content, "order": "sorted"})
    return out


def test_a_dataset_of_before_is_done_and_is_not_added_to(
    songs: Path, as_before: Path, small: Data, tmp_path: Path, new_song, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprint(as_before)
    assert shards.preprocess(songs, as_before, small, workers=1) == []
    assert fingerprint(as_before) == before
    root = Path(shutil.copytree(songs, tmp_path / "more"))
    new_song(root / "train/New")
    with pytest.raises(ValueError, match="of an earlier version, of other songs: name another folder"):
        shards.preprocess(root, as_before, small, workers=1)
    shutil.rmtree(root / "train/New")
    (root / "train/A/drums.wav").write_bytes((root / "train/A/bass.wav").read_bytes())
    with pytest.raises(ValueError, match="of other songs"):
        shards.preprocess(root, as_before, small, workers=1)
    shard = next(as_before.glob("train-*.tar"))
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing or cut short.*restore the file"):
        shards.preprocess(songs, as_before, small, workers=1)


def test_songs_that_an_earlier_version_began_are_made_anew(songs: Path, dataset: Path, small: Data, tmp_path: Path) -> None:
    """Its shards had a song each, with its place in the split; they are removed when the new ones are there."""
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    shutil.copy(dataset / "parts/settings.json", out / "parts")
    for name in ("train-00000-a.tar", "audio-test-00000-d.tar"):
        (out / name).write_bytes(b"x")
    shutil.copy(OLD / "parts/train-00001-three.json", out / "parts")
    shards.preprocess(songs, out, small, workers=1)
    assert fingerprint(out) == fingerprint(dataset)

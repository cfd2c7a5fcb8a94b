"""What datasets can hold besides plain pairs: silence left out, mid and side, copies, several tasks, ready-made pairs."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import stems
from p2p_dist.audio.layouts import source_at
from p2p_dist.data import manifest as manifests
from p2p_dist.data import npz_pairs, pairs, shards, song_sums
from p2p_dist.data.index import Index
from p2p_dist.evaluate.held_out_songs import from_shards
from p2p_dist.settings.config import STEMS, Data, parse_task
from tests import decode
from tests.data.conftest import fingerprint
from tests.data.one_song import one_song


def notes(out: Path, split: str = "train") -> list[dict]:  # type: ignore[type-arg]
    found = []
    for shard in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(shard) as archive:
            found += [json.load(archive.extractfile(m)) for m in archive if m.name.endswith(".json")]  # type: ignore[arg-type]
    return found


@pytest.fixture
def resting(tmp_path: Path) -> Path:
    """A song of 8 s whose drums rest in the first half."""
    folder = tmp_path / "songs" / "train" / "Resting"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in STEMS:
        sound = random.uniform(-0.2, 0.2, (8 * 22050, 2)).astype(np.float32)
        if name == "drums":
            sound[: 4 * 22050] = 0
        soundfile.write(folder / f"{name}.wav", sound, 22050, subtype="PCM_16")
    return folder


def test_silent_windows_are_kept_at_the_share_set_chosen_by_seed(resting: Path, small: Data, tmp_path: Path) -> None:
    windows: dict[object, list[int]] = {}
    for share, seed in ((1.0, 0), (0.5, 0), (0.5, 1), (0.0, 0)):
        out = tmp_path / f"{share}-{seed}"
        one_song(out, resting, replace(small, silent_share=share, seed=seed))
        windows[share, seed] = [note["window"] for note in notes(out)]
    every, none = set(windows[1.0, 0]), set(windows[0.0, 0])
    silent = len(every) - len(none)
    assert silent > 15 and none < every
    for seed in (0, 1):
        assert none < set(windows[0.5, seed]) < every
        assert 0.2 * silent < len(windows[0.5, seed]) - len(none) < 0.8 * silent
    assert windows[0.5, 0] != windows[0.5, 1]
    row = next(line for line in (tmp_path / "0.0-0" / "DATASET.md").read_text().splitlines() if line.startswith("| train"))
    assert row.split(" | ")[4:6] == [str(silent)] * 2


def test_held_out_songs_keep_their_silence(resting: Path, small: Data, tmp_path: Path) -> None:
    one_song(tmp_path / "out", resting, replace(small, silent_share=0.0, copies=2), split="test")
    assert [note["window"] for note in notes(tmp_path / "out", "test")] == list(range(len(notes(tmp_path / "out", "test"))))


def test_a_song_that_is_silent_throughout_may_have_no_windows(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    for name in ("Loud", "Quiet"):
        new_song(tmp_path / "songs/train" / name)
    quiet = tmp_path / "songs/train/Quiet/drums.wav"
    soundfile.write(quiet, np.zeros_like(soundfile.read(quiet)[0]), 22050)
    data = replace(small, silent_share=0.0)
    for _ in range(2):
        assert shards.preprocess(tmp_path / "songs", tmp_path / "out", data, workers=1) == []
    (shard,) = manifests.read(tmp_path / "out")["splits"]["train"]["shards"]
    assert [song[0].rpartition("-")[0] for song in shard["songs"]] == ["loud"]
    assert "| train | 2 |" in (tmp_path / "out/DATASET.md").read_text()


def test_silence_in_the_pictures_of_the_thesis_is_silence_of_the_stem(resting: Path, small: Data) -> None:
    data = replace(small, representation="thesis", window_hop=31)
    decoded = decode.load(source_at(resting, "train"))
    heard, made = map(decoded.sum_of, parse_task("drums"))
    pictures = pairs.make(heard, made, 22050, data)
    silent = pairs.silent_windows(pictures, made, 22050, data)
    ends = pictures.starts * 256 + 31 * 256
    np.testing.assert_array_equal(silent, ends <= 4 * 22050)


def test_windows_in_the_shards_are_those_that_generation_makes_bit_for_bit(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    """Evaluation makes its pictures from the sound in the shards: they are the pictures in the shards."""
    folder = new_song(tmp_path / "songs/D", seconds=3.0, rate=44100, seed=5)
    for channels in ("mono", "mid-side"):
        data = replace(small, channels=channels)
        one_song(tmp_path / channels, folder, data, "test")
        (song,) = from_shards(tmp_path / channels, "test", 1)
        input, target, rate = song.read()
        made = pairs.make(input, target, rate, data)
        found = Index(tmp_path / channels, "test")
        stored = found.read(np.arange(len(found)))
        assert stored.shape[2] == data.picture_channels
        np.testing.assert_array_equal(stored[:, 0], made.inputs)
        np.testing.assert_array_equal(stored[:, 1], made.targets)


def test_training_windows_are_cut_from_the_song_as_generation_sees_it(songs: Path, dataset: Path, small: Data) -> None:
    decoded = decode.load(source_at(songs / "train" / "A", "train"))
    made = pairs.make(*map(decoded.sum_of, parse_task("drums")), decoded.sample_rate, small)
    found = Index(dataset, "train")
    mine = [n for n, sample in enumerate(map(found.sample, range(len(found)))) if sample.key.startswith("a-")]
    stored = found.read(np.array(mine))
    np.testing.assert_array_equal(stored[:, 0], made.inputs)
    np.testing.assert_array_equal(stored[:, 1], made.targets)


def test_the_thesis_windows_of_training_songs_are_those_of_held_out_ones(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    """Of a song to train on only the mean of its channels is kept; a held-out one is whole."""
    data = replace(small, representation="thesis", window_hop=31)
    folder = new_song(tmp_path / "songs/D", seconds=3.0, rate=44100, seed=5)
    one_song(tmp_path / "out", folder, data, "train")
    decoded = decode.load(source_at(folder, "train"))
    made = pairs.make(*map(decoded.sum_of, parse_task("drums")), decoded.sample_rate, data)
    found = Index(tmp_path / "out", "train")
    stored = found.read(np.arange(len(found)))
    np.testing.assert_array_equal(stored[:, 0], made.inputs)
    np.testing.assert_array_equal(stored[:, 1], made.targets)


def test_copies_are_seeded_by_song_window_and_copy(songs: Path, small: Data, tmp_path: Path) -> None:
    data, folder = replace(small, copies=2), songs / "train" / "A"
    for out in ("one", "two"):
        one_song(tmp_path / out, folder, data)
    names = [path.name for path in (tmp_path / "one").glob("*.tar")]
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)
    one_song(tmp_path / "three", folder, replace(data, seed=1))
    found, other, plain = (Index(tmp_path / out, "train") for out in ("one", "three", "one"))
    windows = len(found) // 3
    stored, differently = found.read(np.arange(len(found))), other.read(np.arange(len(other)))
    original = np.arange(len(found)) % 3 == 0  # before its copies
    assert [found.sample(n).key.rpartition("-")[2] for n in (1, 2, 5)] == ["copy1", "copy2", "copy2"]
    np.testing.assert_array_equal(stored[original], differently[original])
    assert not np.array_equal(stored[~original], differently[~original])
    assert len({stored[n].tobytes() for n in range(len(stored))}) == len(stored)
    assert np.isfinite(stored).all() and len(plain.samples) == 3 * windows
    assert f"| {2 * windows} |" in (tmp_path / "one" / "DATASET.md").read_text()


def test_copies_of_a_long_song_are_made_part_by_part(
    resting: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what they are of the whole song, which takes more memory."""
    data = replace(small, copies=1)
    one_song(tmp_path / "whole", resting, data)
    seconds, real = [], stems.load_sums

    def load_sums(*arguments, **named):  # type: ignore[no-untyped-def]
        rate, sums = real(*arguments, **named)
        seconds.append(len(sums[0].sound) / rate)
        return rate, sums

    monkeypatch.setattr(stems, "load_sums", load_sums)
    monkeypatch.setattr(song_sums, "TOGETHER", 4 * 4 * 2 * 22050)
    one_song(tmp_path / "parts", resting, data)
    assert fingerprint(tmp_path / "whole") == fingerprint(tmp_path / "parts")
    assert seconds[0] == 8 and len(seconds) > 7 and max(seconds[1:]) <= 5


def test_copies_need_no_stem_that_the_task_does_not_name(resting: Path, small: Data, tmp_path: Path) -> None:
    data = replace(small, copies=1, task="vocals->drums")
    one_song(tmp_path / "whole", resting, data)
    (resting / "other.wav").write_bytes(b"no sound")
    one_song(tmp_path / "damaged", resting, data)
    stored, expected = (Index(tmp_path / out, "train") for out in ("damaged", "whole"))
    np.testing.assert_array_equal(stored.read(np.arange(len(stored))), expected.read(np.arange(len(expected))))


@pytest.fixture
def thesis_pairs(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, names in (("train", ["A-0", "A-1", "A-10", "C_0"]), ("test", ["D 3"])):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        for name in names:
            np.savez(tmp_path / "pairs" / split / f"{name}.npz", random.uniform(-80, 0, (64, 32)))
    return tmp_path / "pairs"


def test_ready_made_pairs_are_sharded_untouched(thesis_pairs: Path, small: Data, tmp_path: Path) -> None:
    data = replace(small, representation="thesis", window_hop=31)
    assert shards.preprocess(thesis_pairs, tmp_path / "out", data, workers=1) == []
    manifest = manifests.read(tmp_path / "out")
    assert (manifest["dtype"], manifest["shape"]) == ("<f8", [1, 32, 32])
    assert [s["name"] for s in manifest["splits"]["train"]["songs"]] == ["A", "C"]
    found = Index(tmp_path / "out", "train")
    for note, pair in zip(notes(tmp_path / "out"), found.read(np.arange(len(found))), strict=True):
        original = np.load(thesis_pairs / "train" / note["file"])["arr_0"]
        assert pair.dtype == original.dtype
        np.testing.assert_array_equal(pair[0, 0], original[32:])
        np.testing.assert_array_equal(pair[1, 0], original[:32])


def save_damaged(path: Path) -> None:
    """Deflated, and then the beginning of the stream is lost."""
    np.savez_compressed(path, np.random.default_rng(0).uniform(-80, 0, (64, 32)))
    content = bytearray(path.read_bytes())
    content[59:69] = bytes([0xFF] * 10)  # behind the header of the zip: no kind of block that there is
    path.write_bytes(content)


def save_packed_by_an_unknown_method(path: Path) -> None:
    np.savez(path, np.zeros((64, 32)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 10] = 0x63  # in the central directory, from which zipfile reads the method
    path.write_bytes(content)


def save_header(old: bytes, new: bytes) -> Callable[[Path], None]:
    """With something else in the header of the array, or of the zip before it."""

    def save(path: Path) -> None:
        np.savez(path, np.zeros((64, 32)))
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))

    return save


def save_objects(path: Path) -> None:
    np.savez(path, np.array([{"a": 1}], object))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (save_objects, "pickled objects, which are refused"),
        (lambda path: np.savez(path, np.zeros((64, 31))), r"shape \(64, 31\).*must be \(64, 32\)"),
        (lambda path: np.savez(path, np.full((64, 32), np.nan)), "NaN or infinite"),
        (lambda path: np.savez(path, np.zeros((64, 32), int)), "int64"),
        (lambda path: np.savez(path, other=np.zeros((64, 32))), "no array 'arr_0'"),
        (lambda path: path.mkdir(), r"can't be read \(Is a directory\)"),
        (lambda path: path.symlink_to("nowhere"), r"can't be read \(No such file"),
        (save_damaged, "not a pair of spectrograms"),
        (save_header(b"(64, 32), }         ", b"(640000000, 32000),}"), r"shape \(640000000, 32000\)"),
        (save_header(b"}", b" "), "not a pair of spectrograms"),
        (save_packed_by_an_unknown_method, "not a pair of spectrograms"),
        (lambda path: path.write_bytes(b"PK no zip"), "not a pair of spectrograms"),
        (lambda path: path.write_bytes(b""), "not a pair of spectrograms"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "not a pair of spectrograms"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(tmp_path: Path, small: Data, save, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad.npz"
    save(path)
    with pytest.raises(ValueError, match=message) as error:
        npz_pairs.read(path, small)
    assert "bad.npz" in str(error.value)


def test_pairs_of_several_dtypes_are_left_out_or_refused(thesis_pairs: Path, small: Data, tmp_path: Path) -> None:
    data = replace(small, representation="thesis", window_hop=31)
    np.savez(thesis_pairs / "train" / "A-11.npz", np.zeros((64, 32), np.float32))
    (left_out,) = shards.preprocess(thesis_pairs, tmp_path / "out", data, workers=1)
    assert left_out.name == "A" and "differ in dtype" in str(left_out.error)
    np.savez(thesis_pairs / "train" / "C_0.npz", np.zeros((64, 32), np.float32))
    (thesis_pairs / "train" / "A-11.npz").unlink()
    with pytest.raises(ValueError, match="2 kinds"):
        shards.preprocess(thesis_pairs, tmp_path / "out", data, workers=1)

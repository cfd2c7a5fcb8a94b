"""Arrays are found and read in place, and every way a shard can be damaged has its message."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from p2p_dist.common import files, records
from p2p_dist.data import columns, index, shards
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.settings.data import Data
from tests.data.conftest import as_schema_3


def npz(save=np.savez, **arrays: np.ndarray) -> bytes:  # type: ignore[no-untyped-def]
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


@settings(max_examples=50)
@given(
    hnp.arrays(
        st.sampled_from(["<f2", "<f4", "<f8", "u1"]), hnp.array_shapes(max_dims=4, max_side=6), elements=st.integers(0, 9)
    ),
    st.integers(0, 5),
)
def test_an_array_is_found_inside_its_npz(array: np.ndarray, others: int) -> None:
    data = npz(**{f"other{n}": np.arange(n) for n in range(others)}, wanted=np.ascontiguousarray(array))
    offset, dtype, shape = index.array_offset(data, "wanted")
    assert (dtype, shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(np.frombuffer(data[offset : offset + array.nbytes], dtype).reshape(shape), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npz(other=np.zeros(3)), "no array 'wanted'"),
        (npz(np.savez_compressed, wanted=np.zeros(3)), "compressed"),
        (npz(wanted=np.zeros((3, 2)).T), "Fortran"),
        (npz(wanted=np.array([{}], object)), "objects"),
    ],
)
def test_an_array_that_cannot_be_read_in_place_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index.array_offset(data, "wanted")


def test_reading_in_place_gives_what_numpy_loads(dataset: Path) -> None:
    for split in ("train", "valid", "test"):
        found = Index(dataset, split)
        pairs = found.read(np.arange(len(found)))
        for sample, pair in zip(map(found.sample, range(len(found))), pairs, strict=True):
            with tarfile.open(dataset / sample.shard) as archive:
                member = archive.extractfile(f"{sample.key}.npz")
                assert member is not None
                with np.load(io.BytesIO(member.read())) as arrays:
                    np.testing.assert_array_equal(pair[0], arrays["input"])
                    np.testing.assert_array_equal(pair[1], arrays["target"])


def test_there_may_be_more_shards_than_files_may_be_open(small: Data, tmp_path: Path, new_song: Callable[..., Path]) -> None:
    """A large dataset has thousands, and many systems allow a process 1024."""
    for number in range(12):
        new_song(tmp_path / "songs" / "train" / f"song {number}", seconds=0.8, seed=number)
    data = dataclasses.replace(small, shard_size=0.001)
    shards.preprocess(tmp_path / "songs", tmp_path / "out", data, workers=1)
    assert len(Index(tmp_path / "out", "train").shards) >= 10
    program = (
        "import resource, sys, pathlib, numpy\n"
        "from p2p_dist.data.index import Index\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))\n"
        "found = Index(pathlib.Path(sys.argv[1]), 'train')\n"
        "numbers = numpy.arange(len(found))\n"
        "assert (found.read(numbers) == found.read(numbers)).all()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_samples_come_in_the_order_asked_for(dataset: Path) -> None:
    found = Index(dataset, "train")
    every = found.read(np.arange(len(found)))
    order = np.array([3, 0, 3, len(found) - 1])
    np.testing.assert_array_equal(found.read(order), every[order])
    found.close()
    np.testing.assert_array_equal(found.read(order), every[order])


def test_a_folder_without_manifest_has_not_finished(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="preprocessing has not finished"):
        Index(tmp_path, "train")


def test_a_missing_or_cut_shard_is_named_when_the_set_is_opened(copy: Path) -> None:
    name = Index(copy, "train").sample(0).shard
    os.truncate(copy / name, 2000)
    with pytest.raises(ValueError, match=rf"{name} has 2000 bytes"):
        Index(copy, "train")
    (copy / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing"):
        Index(copy, "train")


def test_a_shard_cut_under_the_reader_names_shard_and_offset(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.time, "sleep", lambda _: None)
    found = Index(copy, "train")
    last = len(found) - 1
    sample = found.sample(last)
    found.read(np.array([last]))
    os.truncate(copy / sample.shard, sample.target + 10)
    left = sample.target + 10 - sample.input
    with pytest.raises(OSError, match=rf"only {left} of {left - 10 + 2048} bytes") as error:
        found.read(np.array([last]))
    assert error.value.filename.endswith(f"{sample.shard} at offset {sample.input}")
    (copy / sample.shard).unlink()
    with pytest.raises(FileNotFoundError) as missing:
        found.read(np.array([last]))
    assert f"{sample.shard} at offset {sample.input}" in missing.value.filename


def flip(shard: Path, place: int) -> None:
    """Change one bit of a file in place."""
    with shard.open("r+b") as file:
        file.seek(place)
        (value,) = file.read(1)
        file.seek(place)
        file.write(bytes([value ^ 4]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_is_found_when_its_sample_is_read(copy: Path, data: st.DataObject) -> None:
    """Wherever it is: in a header, the json, an array, padding. The samples around it are read as they were."""
    split = data.draw(st.sampled_from(["train", "test"]))
    found = Index(copy, split)
    number = data.draw(st.integers(0, len(found) - 1))
    sample = found.sample(number)
    begin, end = found.byte_range(number)
    place = data.draw(st.integers(begin, end - 1))
    flip(copy / sample.shard, place)
    try:
        with pytest.raises(files.DamagedError, match=rf"{sample.shard} is damaged: sample {sample.key}: "):
            found.read(np.array([number]))
        others = [n for n in range(len(found)) if n != number]
        found.read(np.array(others))
    finally:
        flip(copy / sample.shard, place)
    found.read(np.array([number]))
    found.close()


def test_a_sample_is_checked_once_and_again_by_the_next_reader(copy: Path) -> None:
    found = Index(copy, "train")
    found.read(np.arange(len(found)))
    flip(copy / found.sample(2).shard, found.sample(2).target + 7)
    found.read(np.array([2]))
    with pytest.raises(files.DamagedError, match=found.sample(2).key):
        Index(copy, "train").read(np.array([2]))


def test_a_sample_read_wrong_once_is_read_again(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.preadv, [1]

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        got = real(descriptor, buffers, offset)
        if len(buffers) > 1 and left[0]:
            left[0] -= 1
            buffers[1][5] ^= 1
        return got

    expected = Index(dataset, "train").read(np.array([1]))
    monkeypatch.setattr(os, "preadv", preadv)
    np.testing.assert_array_equal(Index(dataset, "train").read(np.array([1])), expected)
    assert left == [0]


@pytest.mark.parametrize(("schema", "offset"), [(3, -5), (3, 3), (3, 10), (3, 10**12), (4, -5), (4, 10**12)])
def test_a_sample_that_does_not_lie_where_the_manifest_says_is_damaged(copy: Path, schema: int, offset: int) -> None:
    """The digests of manifest and index are ones that anybody can make."""
    if schema == 3:
        as_schema_3(copy, "train")
    manifest = records.read(copy / manifests.NAME)
    part = manifest["splits"]["train"]
    if schema == 3:
        part["samples"][0][2] = offset
    else:
        found = {name: column.astype(np.int64) for name, column in columns.read(copy, part["index"]).items()}
        found["input"][0] = offset % 2**32
        part["index"] = columns.write(copy, "train", found)
    manifests.write(copy, manifest)
    with pytest.raises((files.DamagedError, OSError)):
        Index(copy, "train").read(np.array([0]))


@pytest.mark.parametrize("failures", [1, 2])
def test_what_a_file_system_refuses_for_a_moment_is_read_again(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(index.time, "sleep", slept.append)
    real, left = os.preadv, [failures]

    def preadv(*arguments: object) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(*arguments)  # type: ignore[arg-type]

    found = Index(dataset, "train")
    expected = found.read(np.array([0]))
    monkeypatch.setattr(os, "preadv", preadv)
    np.testing.assert_array_equal(found.read(np.array([0])), expected)
    assert len(slept) == failures


def test_a_shard_cut_at_any_place_is_never_indexed_in_silence(dataset: Path, tmp_path: Path) -> None:
    shard = next(dataset.glob("train-*.tar"))
    rows = index.index_shard(shard)
    whole = shard.read_bytes()
    for size in range(100, len(whole), 2777):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[:size])
        try:
            found = index.index_shard(cut)
        except ValueError as error:
            assert "cut.tar" in str(error)
        else:
            assert found == rows[: len(found)] and len(found) <= len(rows)


def test_songs_whose_targets_are_silent_are_not_said_to_be_missing(new_song, small: Data, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Not one of their windows is kept."""
    for split in ("train", "test"):
        new_song(tmp_path / f"songs/{split}/one", seconds=1.5)
    soundfile.write(tmp_path / "songs/train/one/drums.wav", np.zeros((33075, 2)), 22050, subtype="PCM_16")
    some = dataclasses.replace(small, silent_share=0.0)
    assert shards.preprocess(tmp_path / "songs", tmp_path / "made", some, workers=1) == []
    with pytest.raises(ValueError, match=r"again, or start a run with a greater --data\.silent-share if the targets"):
        Index(tmp_path / "made", "train")
    with pytest.raises(ValueError, match=r"run the same command again$"):
        Index(tmp_path / "made", "valid")


def test_a_split_without_songs_says_which_song_was_left_out_and_why(new_song, small: Data, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    new_song(tmp_path / "songs/test/good", seconds=1.5, seed=0)
    new_song(tmp_path / "songs/train/bad", seconds=1.5, seed=1)
    (tmp_path / "songs/train/bad/bass.wav").write_text("no sound")
    assert shards.preprocess(tmp_path / "songs", tmp_path / "made", small, workers=1) != []
    with pytest.raises(ValueError, match=r"has no training songs: add songs to .*; left out was bad: .*bass\.wav"):
        Index(tmp_path / "made", "train")
    with pytest.raises(ValueError, match="has no valid songs: add songs to the folder valid/ of --data, or repair those"):
        Index(tmp_path / "made", "valid")

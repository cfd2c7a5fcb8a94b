"""Guides of training songs, as they are written and read again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.common.files import DamagedError
from p2p_dist.data import guides, staging, transfer
from p2p_dist.data.pairs import CEILING, FLOOR
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.presets import PRESETS

MODEL = dataclasses.replace(PRESETS["tiny"].model, sketch=True, beat_phase=True)
KEY = "00000-a"
STAGES = ("none", "node", "disk", "device")


def picture(seed: int = 0, channels: int = 1, frames: int = 20) -> np.ndarray:
    """A picture (channels, 4, frames), dB."""
    return np.random.default_rng(seed).uniform(FLOOR, CEILING["default"], (channels, 4, frames)).astype(np.float16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    variants = [guides.rows_of(picture(seed), np.arange(20) / 8 + seed / 10) for seed in range(3)]
    guides.write_record(tmp_path, 3, 6, {KEY: guides.write_song(tmp_path, KEY, variants)})
    return tmp_path


def test_a_row_holds_a_frame_and_its_place_in_the_beat() -> None:
    rows = guides.rows_of(picture(channels=2), np.array([-0.25] * 20))
    assert rows.shape == (20, 2 * 4 + 2)
    assert np.array_equal(rows[7, :8], picture(channels=2)[:, :, 7].ravel())
    np.testing.assert_allclose(rows[:, 8:], [[-1, 0]] * 20, atol=1e-3)
    assert not guides.rows_of(picture(), None)[:, 4:].any(), "no beat"


def test_any_part_of_any_variant_is_read(folder: Path) -> None:
    found = guides.Guides(folder)
    assert found.variants == 3
    for variant, start, frames in ((0, 0, 20), (2, 5, 4), (1, 12, 8)):
        rows = found.read(KEY, variant, start, frames)
        assert np.array_equal(rows[:, :4].T, picture(variant)[0][:, start : start + frames])
        angle = 2 * np.pi * (np.arange(start, start + frames) / 8 + variant / 10)
        np.testing.assert_allclose(rows[:, 4:].T, [np.sin(angle), np.cos(angle)], atol=1e-3)


def test_they_are_brought_to_the_node_like_shards(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked, into a folder of this user alone, once; what is damaged there is brought again."""
    run, there = RunDir(tmp_path / "run"), {stage: dataclasses.replace(PRESETS["tiny"].data, stage=stage) for stage in STAGES}
    run.pattern.mkdir(parents=True)
    shutil.copytree(folder, run.guides, ignore=shutil.ignore_patterns("run"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.setattr(staging, "MEMORY", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    for stage in ("none", "device"):
        assert staging.training_guides(run, there[stage]) == run.guides
    for stage, place in (("node", "memory"), ("disk", "disk")):
        copy = staging.training_guides(run, there[stage])
        assert copy.is_relative_to(tmp_path / place) and copy.stat().st_mode & 0o777 == 0o700
        assert guides.Guides(copy).digest == guides.Guides(run.guides).digest
        assert np.array_equal(guides.Guides(copy).read(KEY, 1, 3, 9), guides.Guides(folder).read(KEY, 1, 3, 9))
        path = copy / guides.file_name(KEY)
        before = path.stat().st_mtime_ns
        assert staging.training_guides(run, there[stage]) == copy and path.stat().st_mtime_ns == before
        path.write_bytes(bytes(path.stat().st_size))
        staging.training_guides(run, there[stage])
        assert path.read_bytes() == (folder / path.name).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(transfer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
        path.unlink()
        with pytest.raises(OSError, match=r"use --data\.stage none"):
            staging.training_guides(run, there["disk"])
    source = run.guides / guides.file_name(KEY)
    for damage in (lambda: source.write_bytes(bytes(source.stat().st_size)), source.unlink):
        damage()
        with pytest.raises(DamagedError, match=r"00000-a\.f16 is missing or damaged: remove guides\.json beside it and run"):
            staging.training_guides(run, there["disk"])


def test_behind_the_end_is_silence_without_beats(folder: Path) -> None:
    rows = guides.Guides(folder).read(KEY, 1, 18, 5)
    assert np.array_equal(rows[:2, :4].T, picture(1)[0][:, 18:])
    assert (rows[2:, :4] == FLOOR).all() and not rows[2:, 4:].any()
    assert (guides.Guides(folder).read(KEY, 2, 25, 3)[:, :4] == FLOOR).all()


def test_only_so_many_files_are_open_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each song has a file, and many systems allow a process 1024."""
    monkeypatch.setattr(guides.linux, "allow_open_files", lambda wanted: wanted)  # one song
    found = guides.Guides(folder)
    other = "b"
    (folder / guides.file_name(other)).write_bytes((folder / guides.file_name(KEY)).read_bytes())
    found.songs[other] = found.songs[KEY]
    first = found.read(KEY, 1, 0, 4)
    assert np.array_equal(found.read(other, 1, 0, 4), first) and list(found._open) == [other]
    assert np.array_equal(found.read(KEY, 1, 0, 4), first) and list(found._open) == [KEY]
    found.close()


def test_a_guide_is_scaled_like_an_input() -> None:
    rows = guides.rows_of(np.array([[[FLOOR], [CEILING["default"]]], [[-27.5], [FLOOR]]]), np.array([0.25]))
    guide = guides.to_guide(rows, 2, MODEL)
    assert guide.dtype == np.float32 and guide.shape == (4, 2, 1)
    np.testing.assert_allclose(guide[..., 0], [[-1, 1], [0, -1], [1, 1], [0, 0]], atol=1e-3)
    assert guides.to_guide(rows, 2, dataclasses.replace(MODEL, beat_phase=False)).shape == (2, 2, 1)


def test_other_content_than_was_written_is_refused(folder: Path) -> None:
    path = folder / f"{KEY}.f16"
    content = path.read_bytes()
    for wrong in (content[:-2], content + b"\0\0", b"\1" + content[1:]):
        path.write_bytes(wrong)
        with pytest.raises(DamagedError, match="damaged"):
            guides.Guides(folder).read(KEY, 0, 0, 4)
    path.unlink()
    with pytest.raises(DamagedError, match="missing"):
        guides.Guides(folder).read(KEY, 0, 0, 4)
    path.symlink_to(folder / guides.NAME)
    with pytest.raises(OSError, match="symbolic links"):
        guides.Guides(folder).read(KEY, 0, 0, 4)


def test_a_dataset_may_have_more_songs_than_files_may_be_open(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guides.linux, "allow_open_files", lambda wanted: wanted - 2)
    place = tmp_path_factory.mktemp("many")
    entries = {f"0000{n}-a": guides.write_song(place, f"0000{n}-a", [guides.rows_of(picture(n), None)]) for n in range(4)}
    guides.write_record(place, 1, 6, entries)
    found, hashed = guides.Guides(place), []
    honest = guides.files.sha256_file
    monkeypatch.setattr(guides.files, "sha256_file", lambda path: hashed.append(path.name) or honest(path))
    for n in (0, 1, 2, 3, 0, 1, 2, 3):
        assert np.array_equal(found.read(f"0000{n}-a", 0, 0, 20)[:, :4].T, picture(n)[0])
        assert len(found._open) <= 2
    assert len(hashed) == 4, "once each"
    path = place / "00000-a.f16"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    guides.files.write_bytes(path, bytes(content))
    with pytest.raises(DamagedError, match="damaged"):
        found.read("00000-a", 0, 0, 20)
    found.close()


def test_a_song_without_a_sketch_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no sketch of 00001-b"):
        guides.Guides(folder).read("00001-b", 0, 0, 4)
    with pytest.raises(FileNotFoundError):
        guides.Guides(folder / "elsewhere")

"""What tells the content of songs apart without decoding them."""

import os

import numpy as np
import pytest

from p2p_dist.audio import stamps


def test_a_stamp_is_of_the_content_and_not_of_name_or_time(tmp_path):
    content = np.random.default_rng(0).bytes(300_000)
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / "b.wav", (1, 1))
    one, other = stamps.stamps([tmp_path / "a.wav", tmp_path / "b.wav"])
    assert one == other == stamps.stamp(tmp_path / "a.wav")
    for place in (0, 299_999, *(n * (300_000 - stamps.BYTES) // 31 for n in (1, 15, 30))):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "b.wav").write_bytes(changed)
        assert stamps.stamp(tmp_path / "b.wav") != one, place
    (tmp_path / "b.wav").write_bytes(content + b"0")
    assert stamps.stamp(tmp_path / "b.wav") != one


def test_only_a_few_parts_are_read(tmp_path, monkeypatch):
    """If it failed: a login node reads gigabytes to name a data set."""
    with (tmp_path / "long.wav").open("wb") as file:
        file.truncate(1 << 30)
    read = []
    honest = os.pread
    monkeypatch.setattr(stamps.os, "pread", lambda *of: read.append(of[1]) or honest(*of))
    stamps.stamp(tmp_path / "long.wav")
    assert sum(read) == 32 * 4096


def test_an_edit_of_an_eighth_of_a_minute_is_seen(tmp_path):
    """Of a stem of four minutes, wherever it is: no part of it is longer unread."""
    size, second = 240 * 44100 * 4, 44100 * 4
    for begin in range(0, 232, 29):
        with (tmp_path / "a.wav").open("wb") as file:
            file.truncate(size)
            before = stamps.stamp(tmp_path / "a.wav")
            file.seek(begin * second)
            file.write(b"1" * 8 * second)
            file.flush()
            assert stamps.stamp(tmp_path / "a.wav") != before, begin


def test_any_change_of_an_array_in_an_npz_file_is_seen(tmp_path):
    """By the checksums at its end. If it failed: other pairs of the same size are taken for the same."""
    pictures = np.zeros((256, 256), np.float32)
    np.savez(tmp_path / "a.npz", input=pictures, target=pictures)
    before = stamps.stamp(tmp_path / "a.npz")
    pictures[100, 100] = 1
    np.savez(tmp_path / "a.npz", input=pictures, target=np.zeros_like(pictures))
    assert stamps.stamp(tmp_path / "a.npz") != before


def test_a_file_that_can_not_be_read_has_its_size(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"1")

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(stamps.os, "open", refuse)
    assert stamps.stamp(tmp_path / "a.wav")
    with pytest.raises(OSError):
        stamps.stamp(tmp_path / "none.wav")

"""One song, made by a worker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import stems
from p2p_dist.audio.layouts import find_songs, source_at
from p2p_dist.data import song_record, worker
from p2p_dist.settings.config import STEMS, Data
from tests.data.one_song import one_song


@pytest.mark.parametrize(("rate", "channels"), [(22050, 9), (700_000, 1)])
def test_a_held_out_song_that_flac_cannot_hold_is_left_out(tmp_path: Path, small: Data, rate: int, channels: int) -> None:
    folder = tmp_path / "songs" / "Many"
    folder.mkdir(parents=True)
    for name in STEMS:
        soundfile.write(folder / f"{name}.wav", np.full((9000, channels), 0.1), rate)
    result = worker.make_song(song_record.KeyedSong(source_at(folder, "test")), [(tmp_path / "out", small)])
    assert result.error == f"Many: held-out songs are stored as flac, which does not support {channels} channels at {rate} Hz"
    assert not list((tmp_path / "out").glob("*.tar"))
    one_song(tmp_path / "out", folder, small, "train")


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder of songs with a folder, a sound and pairs that this process may not read, though it may be root."""
    mine = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which other users can't enter
        root = Path(folder)
        root.chmod(0o777)
        for name in ("train/Folder", "train/Sound", "train/Pairs"):
            (root / name).mkdir(parents=True)
        for stem in STEMS:
            (root / "train/Folder" / f"{stem}.wav").touch()
            soundfile.write(root / "train/Sound" / f"{stem}.wav", np.zeros((2000, 1)), 22050)
        np.savez(root / "train/Pairs/1.npz", np.zeros((64, 32)))
        for name in ("Folder", "Sound/bass.wav", "Pairs/1.npz"):
            (root / "train" / name).chmod(0)
        os.seteuid(65534 if mine == 0 else mine)
        yield root
        os.seteuid(mine)
        (root / "train/Folder").chmod(0o755)


def test_a_song_that_may_not_be_read_is_left_out_for_that_reason(locked: Path, small: Data) -> None:
    data = replace(small, representation="thesis", window_hop=31)
    found = sorted(find_songs(locked), key=lambda one: one.name)
    for source, file in zip(found, ("Folder", "Pairs/1.npz", "Sound/bass.wav"), strict=True):
        source.size()  # raises nothing
        result = worker.make_song(song_record.KeyedSong(source), [(locked / "out", data)])
        assert result.error == f"{locked}/train/{file}: can't be read (Permission denied)"


def test_a_song_that_is_replaced_while_it_is_made_is_made_again(
    new_song: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed: shards of the old sound would count as those of the new for ever."""
    folder, data, decode = new_song(tmp_path / "songs" / "train" / "A"), Data(), stems.load_sums

    def decode_and_replace(*arguments: Any, **options: Any) -> Any:
        found = decode(*arguments, **options)
        (folder / "drums.wav").write_bytes((folder / "bass.wav").read_bytes())  # of one size
        return found

    monkeypatch.setattr(stems, "load_sums", decode_and_replace)
    item, again = (song_record.KeyedSong(source_at(folder, "train")) for _ in range(2))
    assert not item.finished(tmp_path, data, {})  # as is asked of every song, first of all
    assert worker.make_song(item, [(tmp_path, data)]).error is None
    assert item.finished(tmp_path, data, {}) and not again.finished(tmp_path, data, {})

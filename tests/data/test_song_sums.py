"""A song decoded for several tasks at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import stems
from p2p_dist.audio.layouts import source_at
from p2p_dist.data import song_record, song_sums, worker
from p2p_dist.settings.config import STEMS, Data


def test_tasks_are_grouped_by_what_is_decoded_not_by_the_size_of_files(
    songs: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flac = tmp_path / "A"
    flac.mkdir()
    for name in STEMS:  # silence, of which a flac file takes next to nothing
        soundfile.write(flac / f"{name}.flac", np.zeros((100_000, 2)), 22050)
    wanted = [(tmp_path, replace(small, task=task)) for task in ("drums", "bass", "vocals")]
    monkeypatch.setattr(song_sums, "TOGETHER", 100_000 * 4 * 4)  # four sums of one channel
    assert [len(group) for group in song_sums.group_by_memory(source_at(flac, "train"), wanted)] == [2, 1]
    assert [len(group) for group in song_sums.group_by_memory(source_at(flac, "test"), wanted)] == [1, 1, 1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_several_tasks_from_one_decode_are_what_each_gives_alone(
    small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    folder = tmp_path / "songs" / "D"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in STEMS:  # as loud as to be scaled for its file in some tasks and not in others, and finer than a file holds
        sound = random.uniform(-1, 1, (22050, 2)) * (3.0 if name == "vocals" else 0.01)
        soundfile.write(folder / f"{name}.wav", sound, 22050, subtype="FLOAT")
    work = song_record.KeyedSong(source_at(folder, split))
    tasks = ["drums", "accompaniment", "bass", "vocals", "vocals+other->drums+bass", "other->bass"]
    wanted = [(tmp_path / f"together{n}", replace(small, task=task)) for n, task in enumerate(tasks)]
    decoded = []
    real = stems.load_sums
    monkeypatch.setattr(stems, "load_sums", lambda *a, **named: decoded.append(1) or real(*a, **named))
    assert worker.make_song(work, wanted).error is None
    assert len(decoded) == 1
    monkeypatch.setattr(song_sums, "TOGETHER", 0)  # no memory for more than one
    assert worker.make_song(work, [(tmp_path / "apart" / out.name, data) for out, data in wanted]).error is None
    assert len(decoded) == 1 + len(tasks)
    for out, data in wanted:
        alone = tmp_path / "alone" / out.name
        assert worker.make_song(work, [(alone, data)]).error is None
        for path in [*out.glob("*.tar"), *out.rglob(f"{split}-*.json")]:
            assert path.read_bytes() == (alone / path.relative_to(out)).read_bytes()
            assert path.read_bytes() == (tmp_path / "apart" / path.relative_to(tmp_path)).read_bytes()

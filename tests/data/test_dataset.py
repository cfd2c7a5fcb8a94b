"""The name of a dataset tells its content, and what lies in a folder of that name stays."""

import dataclasses
import json
import os
import shutil

import pytest

from p2p_dist.common import files, records
from p2p_dist.data import dataset, manifest, packing, shards, song_record
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets
from tests.conftest import write_songs

TINY = presets.PRESETS["tiny"].data


def with_other_times(songs, to):
    copy = shutil.copytree(songs, to, copy_function=shutil.copy)
    for path in copy.rglob("*.wav"):
        os.utime(path, (1, 1))
    return copy


@pytest.fixture
def songs(tmp_path):
    write_songs(tmp_path / "songs", {"train/one": 0.8, "train/two": 0.8, "test/three": 0.8})
    return tmp_path / "songs"


def inodes(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("older", [False, True], ids=["now", "version 0.1"])
def test_a_copy_of_the_same_songs_replaces_no_shards(songs, tmp_path, older):
    """Another run may be reading them. If it failed: its files change under it, or are gone."""
    copy = with_other_times(songs, tmp_path / "copy")
    name = dataset.dataset_name(songs, TINY)
    assert name == dataset.dataset_name(copy, TINY)
    if older:  # its names tell songs apart by size, its records by the times of their files
        sources = shards.layouts.list_songs(songs)
        name = dataset.name_of_version_0_1(songs, TINY, sources)
        assert name == dataset.name_of_version_0_1(copy, TINY, shards.layouts.list_songs(copy))
    out = tmp_path / "shards" / name
    assert shards.preprocess(songs, out, TINY, workers=1) == []
    if older:
        for path in (out / "parts").glob("t*.json"):
            content = records.read(path)
            del content["schema"]
            files.write_json(path, files.sealed({**content, "source": "by times", "settings": "0" * 12}))
        digest = dataset.science.digest_of_version_0_1(TINY)
        for path in (out / "parts").glob("t*.json"):
            files.write_json(path, files.sealed({**records.read(path), "settings": digest}))
        os.utime(out / manifest.NAME)
    before = inodes(out)
    assert shards.preprocess(copy, out, TINY, workers=1) == []
    left = ("DATASET.md", ".lock")
    assert {k: v for k, v in inodes(out).items() if k not in left} == {k: v for k, v in before.items() if k not in left}


def test_other_sound_of_the_same_size_is_another_dataset(songs):
    before = dataset.dataset_name(songs, TINY)
    (songs / "train/one/drums.wav").write_bytes((songs / "train/one/bass.wav").read_bytes())
    assert dataset.dataset_name(songs, TINY) != before


def test_a_name_follows_from_what_differs_from_a_frozen_table(songs):
    """If it failed: a default that changes, or a setting that comes, gives all datasets other names."""
    later = dataclasses.make_dataclass("Later", [("pitch", int, 3)], bases=(config.Data,), frozen=True)
    values = {field.name: getattr(TINY, field.name) for field in dataclasses.fields(TINY)}
    assert dataset.dataset_name(songs, later(**values)) == dataset.dataset_name(songs, TINY)
    assert dataset.dataset_name(songs, later(**values, pitch=4)) != dataset.dataset_name(songs, TINY)


def test_a_run_of_version_0_1_keeps_the_name_that_it_wrote_down(songs, tmp_path):
    run = RunDir(tmp_path / "runs" / "a")
    assert dataset.name_for(run, songs, TINY) == dataset.dataset_name(songs, TINY)
    old = dataset.name_of_version_0_1(songs, TINY, shards.layouts.list_songs(songs))
    files.write_text(run.dataset, json.dumps({"name": old}))
    assert dataset.name_for(run, songs, TINY) == old != dataset.dataset_name(songs, TINY)
    write_songs(songs, {"test/four": 0.8})
    assert dataset.name_for(run, songs, TINY) == dataset.dataset_name(songs, TINY)
    files.write_text(run.dataset, json.dumps({"name": "shards-v1"}))
    assert dataset.name_for(run, songs, TINY) == dataset.dataset_name(songs, TINY)


def test_a_song_that_changed_is_made_anew_where_the_folder_is_the_users_own(songs, tmp_path):
    out = tmp_path / "out"
    shards.preprocess(songs, out, TINY, workers=1)
    item = song_record.KeyedSong(next(s for s in shards.layouts.find_songs(songs) if s.name == "one"))
    (songs / "train/one/drums.wav").write_bytes((songs / "train/one/bass.wav").read_bytes())
    packed = packing.packed(out)
    assert item.finished(out, TINY, packed) is None and item.finished(out, TINY, packed, stands=True) is not None


def one_file(folder, split, name, size=10):
    path = folder / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_shards_are_named_by_settings_and_songs(tmp_path):
    data = config.Data()
    one_file(tmp_path / "a", "train", "Õhtu & öö.stem.mp4")
    one_file(tmp_path / "b", "train", "Õhtu & öö.stem.mp4")
    name = dataset.dataset_name(tmp_path / "a", data)
    assert name.startswith("drums-default-")
    assert name == dataset.dataset_name(tmp_path / "b", data), "moving the songs changes nothing"
    assert name != dataset.dataset_name(tmp_path / "a", dataclasses.replace(data, mels=64))
    assert name == dataset.dataset_name(tmp_path / "a", dataclasses.replace(data, stage="node"))
    one_file(tmp_path / "b", "train", "Õhtu & öö.stem.mp4", size=11)
    assert name != dataset.dataset_name(tmp_path / "b", data)

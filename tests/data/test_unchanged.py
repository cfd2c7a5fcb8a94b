"""A dataset with nothing left to do is told without a look into a song or record; any change is seen."""

import os
import shutil
import time

import pytest

from p2p_dist.audio import layouts, stamps
from p2p_dist.cli import preprocess
from p2p_dist.data import dataset, shards, song_record, unchanged
from p2p_dist.settings import presets
from tests.conftest import write_songs

TINY = presets.PRESETS["tiny"].data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of songs and their dataset, beside each other."""
    folder = tmp_path_factory.mktemp("made")
    write_songs(folder / "songs", {"train/one": 0.8, "train/two": 0.8, "test/three": 0.8})
    assert shards.preprocess(folder / "songs", folder / "out", TINY, workers=1) == []
    return folder


@pytest.fixture
def done(made, tmp_path, monkeypatch):
    """A copy of it, noted as done."""
    monkeypatch.setattr(unchanged, "SETTLED", -60.0)  # the songs are new
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", TINY, workers=1) == []
    assert is_done(tmp_path)
    return tmp_path


def is_done(folder, data=TINY, **more):
    songs = unchanged.look(folder / "songs", data.split_by_title)
    return songs is not None and unchanged.is_done(folder / "out", data, songs, **more)


def test_nothing_is_listed_or_read_again(done, monkeypatch, capsys):
    """If it failed: the command takes a minute for 10 000 songs of which none changed."""
    for module, name in ((layouts, "list_songs"), (stamps, "_stamp"), (song_record, "read_record")):
        monkeypatch.setattr(module, name, None)
    (done / "songs/train/demo.mp3").touch()
    with pytest.raises(TypeError):  # None is called
        shards.preprocess(done / "songs", done / "out", TINY, workers=1)
    monkeypatch.undo()
    monkeypatch.setattr(unchanged, "SETTLED", -60.0)
    assert shards.preprocess(done / "songs", done / "out", TINY, workers=1) == []
    capsys.readouterr()
    for module, name in ((layouts, "list_songs"), (stamps, "_stamp"), (song_record, "read_record")):
        monkeypatch.setattr(module, name, None)
    assert preprocess.main(["--data", str(done / "songs"), "--out", str(done / "out"), "--preset", "tiny"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("already done: dataset:") and "demo.mp3" in said.err, "what is ignored is still named"


def rewrite(path):
    """Write another byte into a file in place; its size and time of content stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


CHANGES = {
    "sound of the same size and time": lambda at: rewrite(at / "songs/train/one/drums.wav"),
    "sound removed": lambda at: (at / "songs/test/three/bass.wav").unlink(),
    "sound put in its place": lambda at: (at / "songs/train/one/drums.wav").replace(at / "songs/train/one/bass.wav"),
    "song renamed": lambda at: (at / "songs/train/one").rename(at / "songs/train/four"),
    "song moved to another split": lambda at: (at / "songs/train/one").rename(at / "songs/test/one"),
    "song without stems": lambda at: (at / "songs/train/five").mkdir(),
    "split": lambda at: (at / "songs/valid").mkdir(),
    "file beside the stems of an instrument": lambda at: write_songs(at / "songs", {"train/one/drums/deep": 0.1}),
    "dangling link": lambda at: (at / "songs/train/six").symlink_to("nowhere"),
    "record of the same size and time": lambda at: rewrite(next((at / "out/parts").glob("train-one-*.json"))),
    "record removed": lambda at: next((at / "out/parts").glob("train-one-*.json")).unlink(),
    "shard of the same size and time": lambda at: rewrite(next((at / "out").glob("train-*.tar"))),
    "shard removed": lambda at: next((at / "out").glob("test-*.tar")).unlink(),
    "sound of the dataset": lambda at: rewrite(next((at / "out/audio").glob("*.tar"))),
    "manifest": lambda at: rewrite(at / "out/manifest.json"),
    "index": lambda at: next((at / "out").glob("index-train-*")).unlink(),
    "left by a killed worker": lambda at: (at / "out/parts/.tmp-host-1-a").touch(),
    "note": lambda at: rewrite(at / "out/parts/unchanged.json"),
    "note of another file": lambda at: (at / "out/parts/unchanged.json").write_text("[]"),
    "note that others may have written": lambda at: (at / "out/parts/unchanged.json").chmod(0o666),
    "folder of records that others may write in": lambda at: (at / "out/parts").chmod(0o777),
    "dataset that others may write in": lambda at: (at / "out").chmod(0o777),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(done, change):
    CHANGES[change](done)
    assert not is_done(done)


def test_what_does_not_belong_to_it_changes_nothing(done):
    """Jobs log into slurm/, and locking a folder touches its lock."""
    (done / "out/slurm").mkdir()
    (done / "out/slurm/1.log").write_text("words")
    (done / "out/parts/.lock").touch()
    (done / "songs/train/one").touch()
    (done / "songs/train/one/drums.wav").read_bytes()
    assert is_done(done)


def test_other_settings_songs_and_versions_are_told_apart(done, monkeypatch):
    assert not is_done(done, presets.PRESETS["small"].data)
    elsewhere = shutil.copytree(done / "songs", done / "elsewhere")
    songs = unchanged.look(elsewhere, split_by_title=False)
    assert songs is not None and not unchanged.is_done(done / "out", TINY, songs)
    monkeypatch.setattr(unchanged, "__version__", "9.9.9")
    assert not is_done(done)


def test_songs_that_changed_a_moment_ago_are_looked_at_again(made, tmp_path, monkeypatch):
    """A clock that ticks once a second gives a file the same time when it changes twice within one."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", TINY, workers=1) == []
    assert not (tmp_path / "out/parts/unchanged.json").exists()
    newest = max(path.stat().st_ctime_ns for path in (tmp_path / "songs").rglob("*.wav")) / 1e9
    for later, settled in ((2.9, False), (3.1, True)):
        monkeypatch.setattr(time, "time_ns", lambda later=later: int((newest + later) * 1e9))
        songs = unchanged.look(tmp_path / "songs", split_by_title=False)
        assert songs is not None and songs.settled == settled
        unchanged.note(tmp_path / "out", TINY, songs, named=False)
        assert is_done(tmp_path) == settled


def test_a_song_left_out_is_tried_again(done):
    (done / "songs/train/one/bass.wav").rename(done / "bass.wav")
    for _ in range(2):
        assert len(shards.preprocess(done / "songs", done / "out", TINY, workers=1)) == 1
        assert not is_done(done)
    (done / "bass.wav").rename(done / "songs/train/one/bass.wav")
    assert shards.preprocess(done / "songs", done / "out", TINY, workers=1) == []
    assert is_done(done)


def test_a_dataset_that_has_the_name_of_its_content_is_found_by_its_note(done, monkeypatch):
    """If it failed: the command without --out reads a part of each song to know the name of their dataset."""
    root, name = done / "songs", dataset.dataset_name(done / "songs", TINY)
    other = done / "shards" / f"{name.rpartition('-')[0]}-0123456789ab"  # of the same songs, but a name that somebody gave
    assert shards.preprocess(root, other, TINY, workers=1) == []
    assert dataset.finished(done / "shards", root, TINY) is None
    assert shards.preprocess(root, done / "shards" / name, TINY, workers=1) == []
    monkeypatch.setenv("P2P_RUNS", str(done / "runs"))
    monkeypatch.setattr(layouts, "list_songs", None)
    assert dataset.finished(done / "shards", root, TINY) == done / "shards" / name
    assert preprocess.main(["--data", str(root), "--preset", "tiny"]) == 0
    rewrite(root / "train/one/drums.wav")
    assert dataset.finished(done / "shards", root, TINY) is None
    assert dataset.finished(done / "nowhere", root, TINY) is None


def test_instruments_in_folders_of_their_own_are_looked_at(done):
    """MoisesDB and Slakh2100 have sound two folders below a split."""
    song = done / "songs/train/two"
    (song / "stems").mkdir()
    (song / "drums.wav").rename(song / "stems/S00.wav")
    before = unchanged.look(done / "songs", split_by_title=False)
    rewrite(song / "stems/S00.wav")
    assert unchanged.look(done / "songs", split_by_title=False) != before


def test_songs_in_one_folder_and_no_folder(done):
    one, split = (unchanged.look(done / "songs/train", by_title) for by_title in (True, False))
    assert one is not None and one != split
    assert unchanged.look(done / "nowhere", split_by_title=False) is None

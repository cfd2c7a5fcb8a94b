"""musdb's free sample: downloaded by musdb itself, here from a server on the loopback that has an archive laid out like it."""

import fcntl
import os
import re
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.audio import layouts, musdb18
from p2p_dist.cli import preprocess, submit
from p2p_dist.jobs import musdb_sample
from p2p_dist.run import rundir
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.data.server import Server

if shutil.which("ffmpeg"):  # neither can be imported without it
    import musdb
    import stempeg
FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="musdb needs ffmpeg, which is not installed")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place for runs, without $MUSDB_PATH."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    return tmp_path


def write_archive(path, names=("train/A.stem.mp4", "train/B.stem.mp4", "test/C.stem.mp4")):
    """An archive like musdb's, of the song that stempeg ships."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(musdb18.excerpt_file(), name)
    return path


@pytest.fixture
def server(place, monkeypatch):
    """It on a server, at the address that musdb's configuration has in its processes here."""
    write_archive(place / "there" / musdb_sample.ARCHIVE)
    with Server(place / "there") as server:
        package = shutil.copytree(Path(musdb.__file__).parent, place / "packages" / "musdb")
        settings = package / "configs" / "mus.yaml"
        settings.write_text(re.sub("sample-url: .*", f"sample-url: {server.url}/{musdb_sample.ARCHIVE}", settings.read_text()))
        monkeypatch.setenv("PYTHONPATH", str(place / "packages"))
        yield server


def titles(folder):
    return [(song.split, song.name) for song in layouts.list_songs(folder)]


SONGS = [("train", "A"), ("train", "B"), ("test", "C")]


@FFMPEG
def test_it_is_downloaded_once_beside_the_runs(place, server, capsys):
    assert musdb_sample.fetch() == place / "songs" / "musdb7s"
    assert titles(place / "songs" / "musdb7s") == SONGS
    assert "MUSDB18 is for non-commercial, educational use" in capsys.readouterr().out
    assert musdb_sample.fetch() == place / "songs" / "musdb7s" and len(server.asked) == 1 and capsys.readouterr().out == ""
    assert sorted(path.name for path in (place / "songs" / "musdb7s").iterdir()) == ["test", "train"]
    assert preprocess.main(["--data", "musdb7s", "--preset", "tiny", "--out", str(place / "out"), "--workers", "1"]) == 0
    command, _ = submit.parse(["--data", "musdb7s", "--preset", "tiny"])
    command = submit.with_sample(command)
    assert command.settings.data.root == str(place / "songs" / "musdb7s") and len(server.asked) == 1


@FFMPEG
def test_an_interrupted_or_cut_download_leaves_nothing(place, server):
    server.faults[musdb_sample.ARCHIVE] = ["cut 200000", "503"]
    for said in ("BadZipFile", "HTTPError"):
        with pytest.raises(OSError, match=rf"musdb could not download its sample here \({said}: .* put it into this folder"):
            musdb_sample.fetch()
        assert list((place / "songs" / "musdb7s").iterdir()) == []
    assert titles(musdb_sample.fetch()) == SONGS


def test_without_musdb_or_a_network_the_archive_is_put_there_by_hand(place, monkeypatch):
    (place / "packages" / "musdb").mkdir(parents=True)
    (place / "packages" / "musdb" / "__init__.py").write_text("raise RuntimeError('ffmpeg or ffprobe could not be found!')")
    monkeypatch.setenv("PYTHONPATH", str(place / "packages"))
    monkeypatch.chdir(place)  # what lies there may be somebody else's, and is not imported
    (place / "socket.py").write_text("open('harmed', 'w')")
    with pytest.raises(OSError, match=r"RuntimeError: ffmpeg or ffprobe could not be found!\): fetch https") as error:
        submit.main(["--data", "musdb7s", "--preset", "tiny"])
    folder = Path(error.value.filename)
    assert not (place / "harmed").exists()
    assert f"fetch {musdb_sample.ADDRESS} where there is a network" in error.value.strerror and not rundir.runs_root().exists()
    (folder / musdb_sample.ARCHIVE).write_bytes(b"PK half")
    with pytest.raises(OSError, match="the archive is damaged"):
        musdb_sample.fetch()
    for names in (["train/A.stem.mp4"], ["test/A.stem.mp4"], ["../../escape/train/A.stem.mp4", "../../escape/test/A.stem.mp4"]):
        write_archive(folder / musdb_sample.ARCHIVE, names)
        with pytest.raises(OSError, match="the archive does not hold train/ and test/"):
            musdb_sample.fetch()
        assert [path.name for path in folder.iterdir()] == [musdb_sample.ARCHIVE] and not (place / "escape").exists()
    with zipfile.ZipFile(folder / musdb_sample.ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/A.stem.mp4", bytes(range(256)) * 400)
    content = bytearray((folder / musdb_sample.ARCHIVE).read_bytes())
    content[50:90] = b"\xff" * 40
    (folder / musdb_sample.ARCHIVE).write_bytes(content)
    with pytest.raises(OSError, match=r"the archive is damaged \(Error -3 while decompressing"):
        musdb_sample.fetch()
    write_archive(folder / musdb_sample.ARCHIVE)
    assert titles(musdb_sample.fetch()) == SONGS
    assert musdb18.musdb_settings()["sample-url"] == musdb_sample.ADDRESS


def test_a_second_command_waits_for_the_first(place, capsys):
    """It must not remove what the first one unpacks."""
    folder = place / "songs" / "musdb7s"
    unpacked = folder / ".tmp-of-the-first-musdb7s"
    unpacked.mkdir(parents=True)
    first = os.open(folder, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(musdb_sample.fetch)
        said = ""
        while not said and not second.done():
            said = capsys.readouterr().out
            time.sleep(0.01)
        assert "another process fetches songs to" in said and unpacked.is_dir()
        with zipfile.ZipFile(write_archive(place / "a.zip")) as archive:
            archive.extractall(folder)
        os.close(first)
        assert second.result(30) == folder and unpacked.is_dir()


def test_a_dry_run_fetches_nothing(place):
    with pytest.raises(ValueError, match=r"musdb7s is not in .*songs/musdb7s yet, and a dry run fetches nothing"):
        submit.main(["--data", "musdb7s", "--preset", "tiny", "--dry-run"])


def test_musdb_path_is_used_unless_it_has_other_songs(place, monkeypatch):
    ours = place / "musdb"
    monkeypatch.setenv("MUSDB_PATH", str(ours))
    assert musdb_sample.sample_folder() == ours
    with zipfile.ZipFile(write_archive(place / "a.zip")) as archive:
        archive.extractall(ours)
    assert musdb_sample.sample_folder() == ours and musdb_sample.is_there(ours)
    os.truncate(ours / "train" / "A.stem.mp4", 20_000_000)  # a whole song
    assert musdb_sample.sample_folder() == place / "songs" / "musdb7s"
    shutil.rmtree(ours / "test")
    (ours / "train" / "A.stem.mp4").unlink()
    assert musdb_sample.sample_folder() == place / "songs" / "musdb7s"


@FFMPEG
def test_musdb_itself_finds_the_same_tracks_and_reads_the_same_samples(place):
    """Names, splits, rates, stems and their samples: with musdb's own decoder, which is ffmpeg."""
    with zipfile.ZipFile(
        write_archive(place / "a.zip", ["train/A.stem.mp4", "train/B.stem.mp4", "test/C.stem.mp4"])
    ) as archive:
        archive.extractall(place / "songs")
    database = musdb.DB(root=str(place / "songs"))
    ours = layouts.find_songs(place / "songs")
    assert [(track.subset, track.name) for track in database] == [(song.split, song.name) for song in ours] == SONGS
    track, song = database[0], decode.load(ours[0])
    assert track.rate == song.sample_rate == 44100 and set(track.sources) == set(song.stems) == set(STEMS)
    for name in STEMS:
        theirs, here = track.sources[name].audio, song.stems[name]
        assert theirs.shape == here.shape
        of_16_bits = np.clip(here, -1, 32767 / 32768)  # as theirs are
        np.testing.assert_allclose(of_16_bits, theirs, rtol=0, atol=1.5 / 32768)
    linear = track.targets["linear_mixture"].audio
    np.testing.assert_allclose(sum(np.clip(stem, -1, 1) for stem in song.stems.values()), linear, rtol=0, atol=8 / 32768)
    assert stempeg.Info(str(ours[0].path)).rate(0) == song.sample_rate

"""Many songs: one that was killed, one that another makes, a request to stop."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from p2p_dist.cli import generate
from p2p_dist.common import console, files
from p2p_dist.generate import request, songs
from p2p_dist.generate.model import find_model
from p2p_dist.generate.request import Options
from tests.full_disk import largest_file
from tests.generate.conftest import sound, write
from tests.generate.made import made


def test_one_that_was_killed_as_it_put_its_files_in_place_is_made_again(runs, monkeypatch):
    from p2p_dist.evaluate.report import song_page

    write(Path("song.wav"), sound(0.5))

    def killed(*_):
        raise OSError(5, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(song_page, "write", killed)
        with pytest.raises(OSError) as raised:
            generate.main(["song.wav"])
        assert raised.value.filename == "generated/song", "an error of writing names no file by itself"
    assert Path("generated/song/song-mix.flac").is_file() and not Path("generated/song/index.html").exists()
    assert generate.main(["song.wav", "--seed", "3"]) == 0
    assert made(Path("generated/song"))[3]["settings"]["seed"] == 3


def test_a_disk_that_runs_full_is_named_and_nothing_stays(runs):
    write(Path("song.wav"), sound(2))
    with largest_file(20_000), pytest.raises(OSError, match="File too large") as raised:
        generate.main(["song.wav"])
    assert raised.value.filename == "generated/song" and not Path("generated/song").exists()


def test_a_request_to_stop_that_a_library_swallows_is_not_lost(runs, monkeypatch, capsys):
    from p2p_dist.evaluate.report import song_page

    for name in ("a.wav", "b.wav"):
        write(Path(name), sound(0.4))
    real = song_page.write

    def swallowing(*asked):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:  # as a callback from C does
            real(*asked)

    monkeypatch.setattr(song_page, "write", swallowing)
    before = signal.getsignal(signal.SIGINT)
    assert generate.main(["a.wav", "b.wav"]) == console.STOPPED
    assert signal.getsignal(signal.SIGINT) is before
    assert Path("generated/a/index.html").is_file() and not Path("generated/b").exists()
    assert not json.loads(Path("generated/a/a.json").read_text())["takes"], "its page may have a gap: it is made again"


def test_a_song_that_another_process_makes_is_passed_over(runs, capsys):
    import fcntl

    write(Path("song.wav"), sound(0.5))
    Path("generated/song").mkdir(parents=True)
    with Path("generated/song/.tmp-song").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert generate.main(["song.wav"]) == 1, "it is not done"
    assert "is being made by another process" in capsys.readouterr().out
    temporary, stem = f".tmp-host-1-{'0a' * 8}-", request.stem_name(find_model(None).task)
    for name in ("song-mix.flac", f"song-{stem}-2.mp3", "song-0.raw", "song.json"):
        Path(f"generated/song/{temporary}{name}").write_text("left by one that was killed")
    # Other songs, in whose names this one's is.
    others = [
        f"{temporary}{name}"
        for name in (
            *("other-mix.flac", "song2-mix.flac", "my-song-mix.flac", "my-song.json", "song-live-mix.flac", "song-1.json"),
            *(f"song-{stem}.json", f"song-{stem}-mix.flac", "song-1-0.raw"),
        )
    ]
    for name in others:
        Path(f"generated/song/{name}").write_text("of another song")
    assert generate.main(["song.wav"]) == 0
    assert sorted(path.name for path in Path("generated/song").glob(".tmp-*")) == sorted(others)


def test_a_lock_that_was_removed_since_it_was_opened_is_none(runs, monkeypatch, capsys):
    """Between opening and locking it, the process that had it ends, and a third process makes the song and locks a new one.

    If it failed: two processes would make the song, and its temporary files and the lock of the third would be removed.
    """
    import fcntl

    write(Path("song.wav"), sound(0.5))
    path, real, third = Path("generated/song/.tmp-song"), fcntl.flock, []

    def late(descriptor, kind):
        if not third:
            path.unlink()
            third.append(path.open("w"))
            real(third[0], fcntl.LOCK_EX)
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    assert generate.main(["song.wav"]) == 1
    assert "is being made by another process" in capsys.readouterr().out
    assert [path.name for path in Path("generated/song").iterdir()] == [path.name]
    assert os.path.samestat(path.stat(), os.fstat(third[0].fileno()))
    third[0].close()


@pytest.mark.parametrize("where", ["flock", "fstat"])
def test_a_lock_that_another_node_has_removed_is_none(runs, monkeypatch, capsys, where):
    """NFS tells so by an error of its own kind, which ended the command."""
    import fcntl

    told, locks = os.fstat, []

    def lock(descriptor, kind):
        locks.append(descriptor)
        if where == "flock":
            raise OSError(errno.ESTALE, "Stale file handle")

    def fstat(descriptor):
        if where == "fstat" and descriptor in locks:
            raise OSError(errno.ESTALE, "Stale file handle")
        return told(descriptor)

    write(Path("song.wav"), sound(0.5))
    monkeypatch.setattr(fcntl, "flock", lock)
    monkeypatch.setattr(os, "fstat", fstat)
    assert generate.main(["song.wav"]) == 1
    assert "is being made by another process" in capsys.readouterr().out


def refuse_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def test_one_that_was_made_since_it_was_looked_for_is_not_made_again_and_no_lock_is_needed(runs, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refuse_locks)
    write(Path("song.wav"), sound(0.3))
    model, (one,) = find_model("band"), request.find([Path("song.wav")], None)
    told = []
    for overwrite in (False, False, True):
        asked = {"overwrite": overwrite, "page": lambda *_: Path("generated/song/index.html").touch(), "on_song": told.append}
        assert songs.make([one], model, Options(), **asked) == []
    assert [made.record is not None for made in told] == [True, False, True]


@pytest.mark.parametrize("locks", ["none", "of each node"])
def test_without_locks_no_process_removes_the_files_that_another_is_writing(tmp_path, monkeypatch, locks):
    import fcntl

    from p2p_dist.run import lock

    if locks == "none":
        monkeypatch.setattr(fcntl, "flock", refuse_locks)
    else:
        monkeypatch.setattr(lock, "_mount_options", lambda descriptor: {"localflock"})
    place = request.Place(tmp_path / "song", "song")
    with songs._alone(place, "drums") as first, files.replacing(place.file("drums", "flac")) as temporary:
        with songs._alone(place, "drums") as second:
            assert first and second
        temporary.write_text("sound")
    assert place.file("drums", "flac").read_text() == "sound"


def test_the_seconds_to_make_are_those_of_the_part_for_each_take(runs):
    write(Path("song.wav"), sound(2.0))
    (one,) = request.find([Path("song.wav")], None)
    for options, wanted in (
        (Options(), 2.0),
        (Options(begin=0.5, end=1.5, takes=3), 3.0),
        (Options(begin=1.5, end=9), 0.5),
        (Options(begin=3), 0.0),
    ):
        assert songs.seconds(one, options) == pytest.approx(wanted)


def test_a_song_is_made_on_the_gpu_of_a_mac(monkeypatch):
    assert songs.device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert songs.device().type == "mps"

"""Many songs: one that was killed, one that another makes, a request to stop."""

import os
import signal
from pathlib import Path

import pytest

from p2p_dist.cli import generate
from p2p_dist.common import console
from tests.generate.conftest import sound, write
from tests.generate.made import made


def test_one_that_was_killed_as_it_put_its_files_in_place_is_made_again(runs, monkeypatch):
    from p2p_dist.evaluate.report import song_page

    write(Path("song.wav"), sound(0.5))

    def killed(*_):
        raise OSError(5, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(song_page, "write", killed)
        with pytest.raises(OSError):
            generate.main(["song.wav"])
    assert Path("generated/song/song-mix.flac").is_file() and not Path("generated/song/index.html").exists()
    assert generate.main(["song.wav", "--seed", "3"]) == 0
    assert made(Path("generated/song"))[3]["settings"]["seed"] == 3


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


def test_a_song_that_another_process_makes_is_passed_over(runs, capsys):
    import fcntl

    write(Path("song.wav"), sound(0.5))
    Path("generated/song").mkdir(parents=True)
    with Path("generated/song/.tmp-song").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert generate.main(["song.wav"]) == 0
    assert "is being made by another process" in capsys.readouterr().out
    Path("generated/song/.tmp-host-1-ab-song-mix.flac").write_text("left by one that was killed")
    Path("generated/song/.tmp-host-1-ab-other-mix.flac").write_text("of another song")
    assert generate.main(["song.wav"]) == 0
    assert [path.name for path in Path("generated/song").glob(".tmp-*")] == [".tmp-host-1-ab-other-mix.flac"]

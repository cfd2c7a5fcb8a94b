"""Which songs are meant, and where their stems go."""

import os
from pathlib import Path

import pytest

from p2p_dist.cli import generate
from p2p_dist.generate import request
from tests.generate.conftest import sound, write


def test_a_folder_of_songs(runs, capsys):
    """Each in a folder of its own; names that differ in the format alone are told apart; a bad one does not stop the others."""
    for name in ("a.wav", "b.wav", "b.flac", "live/a.wav", 'odd "& <b> ä עברית.wav'):
        write(Path("songs") / name, sound(0.6))
    Path("songs/broken.mp3").write_text("no sound")
    Path("songs/notes.txt").write_text("not a song")
    assert generate.main(["songs", "--out", "made"]) == 1
    found = {str(path.parent.relative_to("made")) for path in Path("made").rglob("*.json") if "media" not in path.parts}
    assert found == {"a", "b.wav", "b.flac", "live/a", 'odd "& <b> ä עברית'}
    out, err = capsys.readouterr()
    assert "songs/broken.mp3 is not a sound file that can be decoded" in err and "1 songs left out" in err
    assert "left out: songs/broken.mp3" in out
    assert not list(Path("made").rglob(".tmp-*")) and not Path("made/broken").exists()
    assert generate.main(["songs", "--out", "made"]) == 1
    assert "already done: 5 of 6 songs" in capsys.readouterr().out


def test_a_folder_that_holds_what_was_made(runs):
    write(Path("songs/a.wav"), sound(0.6))
    assert generate.main(["songs", "--out", "songs/made"]) == 0
    assert generate.main(["songs", "--out", "songs/made"]) == 0
    assert [path for path in Path("songs").rglob("*.json") if "media" not in path.parts] == [Path("songs/made/a/a.json")]
    write(Path("generated/a/a-mix.wav"), sound(0.1))
    assert [one.source for one in request.find([Path()], Path("songs/made"))] == [
        Path("generated/a/a-mix.wav"),
        Path("songs/a.wav"),
    ], "with --out, that folder alone is one of what is made"
    assert "generated" not in str(request.find([Path()], None)[0].source)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (b"...wav", "song"),
        (b"....wav", "song"),
        (b".hidden.wav", "hidden"),
        (b".wav", "wav"),
        (b"a.stem.mp4", "a"),
        (b".stem.mp4", "stem"),
        (b"na\xefve.wav", "na\ufffdve"),
        ("\u00e9".encode() * 110 + b".wav", "\u00e9" * 75),
    ],
)
def test_what_is_made_is_in_a_folder_of_its_own_that_can_be_seen(runs, name, title):
    Path(os.fsdecode(name)).touch()
    (found,) = request.find([Path(os.fsdecode(name))], None)
    assert found.place == request.Place(Path("generated", title), title)


def test_names_that_are_no_text_and_names_of_several_lines(runs, capsys):
    for name in (b"na\xefve.wav", b"a\nb.wav"):
        write(Path("a.wav"), sound(0.2)).rename(os.fsdecode(name))
        assert generate.main([os.fsdecode(name)]) == 0
    assert generate.main([os.fsdecode(b"a\nb.wav"), "--out", os.fsdecode(b"\xef")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert r"generated/a\nb: a\nb-drums.flac, a\nb-mix.flac, a\nb-drums.mid" in said
    assert "  listening page: generated/na\ufffdve/index.html" in said and Path("generated/na\ufffdve/index.html").is_file()
    assert generate.main([os.fsdecode(b"na\xefve.wav")]) == 0
    assert "already done: generated/na\ufffdve" in capsys.readouterr().out

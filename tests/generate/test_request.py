"""Which songs are meant, and where their stems go."""

from pathlib import Path

from p2p_dist.cli import generate
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

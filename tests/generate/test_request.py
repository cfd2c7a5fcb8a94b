"""Which songs are meant, and where their stems go."""

import os
from pathlib import Path

import pytest

from p2p_dist.audio import decode
from p2p_dist.cli import generate
from p2p_dist.common import records, schemas
from p2p_dist.generate import request
from p2p_dist.generate.request import Options
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
    assert "songs/broken.mp3 is not a sound file that can be decoded" in err and "songs left out (1)" in err
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


def test_what_was_made_among_the_songs_is_no_song(runs, capsys):
    """The output folder may be that of the songs, or one of an earlier command."""
    write(Path("songs/a.wav"), sound(0.6))
    write(Path("songs/a-live.wav"), sound(0.7))
    for _ in range(2):
        assert generate.main(["songs", "--out", "songs"]) == 0
    assert "already done: 2 of 2 songs" in capsys.readouterr().out
    assert generate.main(["songs/a.wav", "--out", "songs"]) == 0
    wanted = [Path("songs/a-live.wav"), Path("songs/a.wav")]
    assert Path("songs/a-mix.flac").is_file() and [one.source for one in request.find([Path("songs")], None)] == wanted
    content = records.read(Path("songs/a/a.json"), schemas.GENERATED)
    records.write(Path("songs/a/a.json"), schemas.GENERATED, {**content, "takes": []})  # killed while it replaced its files
    assert [one.source for one in request.find([Path("songs")], None)] == wanted
    records.write(Path("songs/a.json"), schemas.GENERATED, {**content, "takes": []})
    assert [one.source for one in request.find([Path("songs")], None)] == wanted, "a song beside it stays one"
    Path("songs/a/a.json").write_text("{}")
    assert len(request.find([Path("songs")], None)) == 4, "nothing says that these were made here"


def test_no_take_is_a_song(runs):
    write(Path("songs/a.wav"), sound(0.6))
    assert generate.main(["songs/a.wav", "--out", "songs", "--takes", "2"]) == 0
    assert [one.source for one in request.find([Path("songs")], None)] == [Path("songs/a.wav")]


def test_the_page_of_somebody_and_that_of_another_song_stay(runs):
    for name in ("a.wav", "b.wav"):
        write(Path(name), sound(0.6))
    assert generate.main(["a.wav", "--out", "made"]) == 0
    assert Path("made", request.PAGE).is_file() and Path("made", request.TRACKS).is_dir()
    for name, folder in ((request.PAGE, "site"), (f"{request.TRACKS}/theirs.ogg", "played")):
        Path(folder, name).parent.mkdir(parents=True)
        Path(folder, name).write_text("mine")
    before = {path: path.stat().st_mtime_ns for folder in ("made", "site", "played") for path in Path(folder).rglob("*")}
    for folder, there in (("made", request.PAGE), ("site", request.PAGE), ("played", request.TRACKS)):
        with pytest.raises(ValueError, match=rf"^{folder}/{there} already exists, but no b\.json describes.*another folder"):
            generate.main(["b.wav", "--out", folder])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert generate.main(["b.wav", "--out", "site", "--overwrite"]) == 0


def test_which_files_of_a_folder_are_songs_and_names_that_some_disks_take_for_one(runs):
    for name in ("A.MP3", "b.flac", "B.wav", ".c.wav", ".git/d.wav", "e.txt"):
        (Path("songs") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("songs") / name).touch()
    found = {str(one.source): str(one.place.folder) for one in request.find([Path("songs")], None)}
    assert found == {"songs/A.MP3": "generated/A", "songs/b.flac": "generated/b.flac", "songs/B.wav": "generated/B.wav"}
    Path("x").mkdir()
    Path("x/A.MP3").touch()
    Path("a.mp3").touch()
    with pytest.raises(ValueError, match=r"x/A\.MP3 and a\.mp3 would be written to the same folder, generated/a"):
        request.find([Path("x/A.MP3"), Path("a.mp3")], None)


def test_one_of_many_songs_that_is_not_there_is_named(runs):
    """All names together are too long for one name, which is another error."""
    names = [Path(f"a song with a rather long name {number}.wav") for number in range(20)]
    for path in names:
        path.touch()
    with pytest.raises(ValueError, match=r"no file or folder missing\.wav$"):
        request.find([*names, Path("missing.wav")], None)


def test_a_song_that_can_not_be_read_is_an_error_of_its_own(tmp_path, monkeypatch):
    """So that the others are made. What is not a file is not opened: that would wait for a pipe."""
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(ValueError, match=r"loop\.wav can't be read \(Too many levels of symbolic links\)"):
        request.requested(tmp_path / "loop.wav", "s", request.Options())
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ValueError, match=r"pipe\.wav is not a file: save the sound in a file"):
        request.requested(tmp_path / "pipe.wav", "s", request.Options())

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.wav").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"a\.wav can't be read \(Permission denied\)"):
        decode.look(tmp_path / "a.wav")


def test_midi_is_of_drums_alone_and_a_song_without_its_page_is_not_done(tmp_path):
    place = request.Place(tmp_path, "a")
    for task, kinds in (("drums", {"stem", "mix", "midi"}), ("accompaniment", {"stem", "mix"}), ("bass", {"stem", "mix"})):
        assert {kind for take in request.planned(place, task, Options()) for kind in take} == kinds
    takes = request.planned(place, "bass", Options(takes=2))
    for one in (path for take in takes for path in take.values()):
        one.write_text("a")
    (tmp_path / "song").touch()
    wanted = request.requested(tmp_path / "song", "0" * 64, Options(takes=2))
    names = [{kind: {"name": path.name, "bytes": 1} for kind, path in take.items()} for take in takes]
    record = {
        "song": {
            "file": "song",
            "stamp": wanted["stamp"],
            "sample_rate": 1,
            "channels": ["1"],
            "samples": 1,
            "begin_sample": 0,
        },
        "model": {"name": "band@20", "task": "bass", "step": 20, "sha256": "0" * 64},
        "settings": wanted["settings"],
        "tempo": None,
        "takes": [{"seed": 0, "gain_db": 0.0, "files": one} for one in names],
        "notes": [],
        "seconds": {"song": 1.0},
        "versions": {},
    }
    records.write(place.record, schemas.GENERATED, record)
    assert not request.is_made(place, wanted, takes)
    (tmp_path / request.PAGE).touch()
    assert request.is_made(place, wanted, takes)
    takes[1]["mix"].write_text("longer")
    assert not request.is_made(place, wanted, takes)
    without = {name: value for name, value in wanted["settings"].items() if name != "seed"}  # as an option typed last time
    for change, told in (
        ({"sha256": "1" * 64}, "model: band@20"),
        ({"stamp": "other"}, "song: song"),
        ({"settings": without | {"bpm": 120.0}}, "seed: 0 -> None, bpm: None -> 120.0"),
        ({"settings": wanted["settings"] | {"begin": 2.0, "end": 3.0}}, "from: 0.0 -> 2.0, to: None -> 3.0"),
        ({"settings": wanted["settings"] | {"first_beat": 0.5}}, "first-beat: None -> 0.5"),
    ):
        with pytest.raises(ValueError, match=f"made with other settings \\({told}\\): add --overwrite"):
            request.is_made(place, {**wanted, **change}, takes)


def test_a_beat_at_the_very_beginning_is_asked_for_like_any_other():
    """0 is what False is: the option was lost, in the record and on the way to a job."""
    later = {"bpm", "first_beat", "half_beat", "density"}
    assert not later & Options().recorded().keys()
    asked = Options(first_beat=0.0, half_beat=True)
    assert {name: asked.recorded()[name] for name in ("first_beat", "half_beat")} == {"first_beat": 0.0, "half_beat": True}
    assert Options(**asked.recorded()) == asked


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (b"...wav", "song"),
        (b"....wav", "song"),
        (b" .wav", "song"),
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
    assert generate.main(["a\nb.wav"]) == 0
    assert r"already done: generated/a\nb" in capsys.readouterr().out.splitlines()
    with pytest.raises(ValueError, match=r"^generated/a\\nb/a\\nb\.json describes files made with other settings"):
        generate.main(["a\nb.wav", "--seed", "3"])
    for name in ("c\nd.mp3", "e.mp3"):
        Path("broken", name).parent.mkdir(exist_ok=True)
        Path("broken", name).touch()
    assert generate.main(["broken"]) == 1
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert r"broken/c\nd.mp3 is empty: copy it again" in text and "\nd.mp3" not in text


def test_what_a_file_server_keeps_is_no_song_and_a_title_may_begin_with_dots(tmp_path):
    """Deleted songs, sidecar files and previews of a NAS have the names of songs; a broken link is one on a missing disk."""
    kept = ("@eaDir/a.mp3", "#recycle/old.mp3", "__MACOSX/a.mp3", "._a.mp3", ".hidden.mp3", "album/@eaDir/a.mp3/cover.jpg")
    songs = ("a.mp3", "...And on.mp3", "@home/b.mp3", "#1 hit.mp3", "album/a.mp3")
    for name in (*kept, *songs):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "in" / "gone.mp3").symlink_to(tmp_path / "disk" / "gone.mp3")
    found = request.find([tmp_path / "in"], tmp_path / "out")
    assert {str(one.source.relative_to(tmp_path / "in")) for one in found} == {*songs, "gone.mp3"}
    gone = next(one.source for one in found if one.source.name == "gone.mp3")
    with pytest.raises(ValueError, match=r"gone\.mp3 is a broken link \(target .*disk/gone\.mp3\)"):
        request.requested(gone, "0", request.Options())


def test_a_link_to_a_folder_elsewhere_is_named_not_passed_over(tmp_path):
    for name in ("lib/a.mp3", "lib/b.aifc", "elsewhere/c.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "lib" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lib" / "again").symlink_to(tmp_path / "lib")  # its songs are found already
    found = [one.source for one in request.find([tmp_path / "lib"], tmp_path / "out")]
    assert {str(path.relative_to(tmp_path / "lib")) for path in found} == {"a.mp3", "b.aifc", "there"}
    with pytest.raises(ValueError, match="there is a link to a folder, which is not followed"):
        request.requested(tmp_path / "lib" / "there", "0", request.Options())

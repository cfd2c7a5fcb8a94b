"""Songs are found in every layout, split by folders or titles, and what is no song is named."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import layouts, musdb18, stems
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.song_files import source, write_stems


def test_songs_are_found_by_split_and_name(tmp_path: Path) -> None:
    for place in ("train/b", "train/a", "test/z", "train/.hidden"):
        write_stems(tmp_path / place)
    shutil.copy(musdb18.excerpt_file(), tmp_path / "test" / "An excerpt.stem.mp4")
    (tmp_path / "train" / "notes.txt").write_text("not a song")
    found = layouts.find_songs(tmp_path)
    assert [(song.split, song.name) for song in found] == [
        ("train", "a"), ("train", "b"), ("test", "An excerpt"), ("test", "z"),
    ]  # fmt: skip
    assert all(song.size() > 4 * 4410 for song in found)


def test_a_song_is_its_stems_in_whatever_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another layout is another case of one function: it is found, decoded, and counts as a song everywhere."""
    known, root = layouts.source_at, tmp_path / "songs"

    def of_takes(path: Path, split: str) -> layouts.Source | None:
        """SONG/takes/01 drums.wav, as another program might write them."""
        stems = {stem: file for stem in STEMS for file in path.glob(f"takes/*{stem}.wav")}
        return layouts.Source(path.name, split, path, stems) if stems else known(path, split)

    monkeypatch.setattr(layouts, "source_at", of_takes)
    write_stems(root / "train" / "plain")
    takes = write_stems(root / "train" / "Odd" / "takes")
    for number, name in enumerate(STEMS):
        (takes / f"{name}.wav").rename(takes / f"{number:02d} {name}.wav")
    odd, plain = layouts.find_songs(root)
    assert (odd.name, odd.split, len(odd.files()), odd.stem_file) == ("Odd", "train", 4, None)
    there, here = decode.load(odd), decode.load(plain)
    assert all(np.array_equal(there.stems[name], here.stems[name]) for name in STEMS) and stems.header(odd)[2] == 4410
    assert layouts.overlooked(root, split_by_title=False) == [] and layouts.overlooked(tmp_path) == []
    assert len(layouts.source_at(musdb18.excerpt_file(), "train").files()) == 1, "one file holds all stems"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make", [lambda root: None, lambda root: root.mkdir(), lambda root: (root / "train").mkdir(parents=True)]
)
def test_a_folder_without_songs_says_what_is_expected(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=r"data.*train.*test.*SONG\.stem\.mp4"):
        layouts.find_songs(tmp_path / "data")


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "__MACOSX", "lost+found", "._Song", ".DS_Store", "#recycle", "~snapshot", "$RECYCLE.BIN"),
        *("FOUND.000", "Network Trash Folder", "Temporary Items", "_gsdata_"),
    ],
)
def test_what_machines_leave_is_passed_over(tmp_path: Path, name: str) -> None:
    write_stems(tmp_path / "train" / "a")
    (tmp_path / "train" / name / "a").mkdir(parents=True)
    (tmp_path / "train" / name / "drums.wav").mkdir()  # of each file of sound, Synology keeps a folder with its name
    (tmp_path / "train" / name / "other.stem.mp4").write_bytes(b"a preview, or deleted")
    assert [song.name for song in layouts.find_songs(tmp_path)] == ["a"]
    assert layouts.overlooked(tmp_path) == []


def test_a_song_with_such_a_name_is_one(tmp_path: Path) -> None:
    write_stems(tmp_path / "train" / "#1 hit")
    (tmp_path / "train" / "@home").mkdir()
    (tmp_path / "train" / "@home" / "drums.mp3").touch()
    write_stems(tmp_path / "train" / "~daw" / "Audio")
    write_stems(tmp_path / "train" / "...And on")
    shutil.copy(musdb18.excerpt_file(), tmp_path / "train" / "~.stem.mp4")
    (tmp_path / "train" / "Thumbs.db").touch()
    (tmp_path / "train" / "@empty" / "drums.wav").mkdir(parents=True)
    assert {song.name for song in layouts.find_songs(tmp_path)} == {"#1 hit", "@home", "~", "~daw", "...And on"}


def test_a_disk_that_is_missing_is_not_passed_over(tmp_path: Path) -> None:
    """Songs or whole splits may be links to another disk; a broken one is reported, not a dataset with fewer songs."""
    write_stems(tmp_path / "train" / "a")
    (tmp_path / "train" / "b").symlink_to(tmp_path / "disk" / "b")
    (tmp_path / "train" / "loop").symlink_to("loop")
    a, b, loop = layouts.find_songs(tmp_path)
    assert (a.name, b.name, loop.name) == ("a", "b", "loop")
    for song in (b, loop):
        with pytest.raises(ValueError, match=rf"train/{song.name}: broken link \(target .*{song.name}\)"):
            decode.load(song)
    for split in ("test", "valid"):
        (tmp_path / split).symlink_to(tmp_path / "disk" / split)
        with pytest.raises(ValueError, match=rf"{split} is a broken link \(target .*disk/{split}\)"):
            layouts.find_songs(tmp_path)
        (tmp_path / split).unlink()
    (tmp_path / "test").write_text("as a checkout without links writes one: ../disk/test")
    with pytest.raises(ValueError, match="test is a file, where a folder of songs is expected"):
        layouts.find_songs(tmp_path)


def test_letters_of_names_may_be_large_or_small(tmp_path: Path) -> None:
    """Folders of splits, stems and suffixes, as Windows, macOS and DAWs write them; the exact name comes first."""
    folder = write_stems(tmp_path / "Train" / "Daw")
    before = decode.load(source(folder))
    for file in sorted(folder.iterdir()):
        file.rename(folder / file.name.capitalize().replace("wav", "WAV"))
    soundfile.write(folder / "DRUMS.flac", np.zeros((4410, 2)), 44100)
    shutil.copy(musdb18.excerpt_file(), tmp_path / "Train" / "LOUD.STEM.MP4")
    write_stems(tmp_path / "TEST" / "a")
    found = layouts.find_songs(tmp_path)
    assert [(song.split, song.name) for song in found] == [("train", "Daw"), ("train", "LOUD"), ("test", "a")]
    after = decode.load(found[0])
    assert all(np.array_equal(after.stems[name], before.stems[name]) for name in STEMS)
    soundfile.write(folder / "bass.wav", np.zeros((4410, 2)), 44100)
    assert layouts.stem_files(folder)["bass"] == folder / "bass.wav"


def test_two_folders_of_one_split_are_named(tmp_path: Path) -> None:
    write_stems(tmp_path / "train" / "a")
    write_stems(tmp_path / "Train" / "b")
    with pytest.raises(ValueError, match=r"Train and .*train are both folders of train songs"):
        layouts.find_songs(tmp_path)


def test_a_folder_of_validation_songs_is_read_and_none_is_taken_from_train(tmp_path: Path) -> None:
    names = [f"Title {number}" for number in range(12)]
    for name in names:
        write_stems(tmp_path / "train" / name, samples=100)
    assert any(song.split == "valid" for song in layouts.find_songs(tmp_path))
    write_stems(tmp_path / "valid" / "v", samples=100)
    found = layouts.find_songs(tmp_path)
    assert [song.name for song in found if song.split == "valid"] == ["v"]
    assert sum(song.split == "train" for song in found) == len(names)


def test_songs_without_splits_are_named_and_split_by_title_when_asked(tmp_path: Path) -> None:
    for number in range(9):
        write_stems(tmp_path / f"Title {number}", samples=100)
    with pytest.raises(
        ValueError, match=r"9 songs lie in .* itself \(Title 0, Title 1, Title 2 \.\.\.\).*--data\.split-by-title"
    ):
        layouts.find_songs(tmp_path)
    before = {song.name: song.split for song in layouts.find_songs(tmp_path, split_by_title=True)}
    assert set(before.values()) >= {"train", "test"} and len(before) == 9
    write_stems(tmp_path / "Another", samples=100)
    after = {song.name: song.split for song in layouts.find_songs(tmp_path, split_by_title=True)}
    assert {name: after[name] for name in before} == before
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"has train/: its songs are already split"):
        layouts.find_songs(tmp_path, split_by_title=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda root: touch(root / "train/Song/drums.mp3", root / "train/Song/bass.mp3"),
            r"; .*/train/Song has bass\.mp3, drums\.mp3: convert compressed formats such as mp3 to wav or flac first$",
        ),
        (
            lambda root: touch(root / "train/A/lyrics.txt", root / "train/B/drums.m4a"),
            r"; .*/train/B has drums\.m4a: convert compressed",
        ),
        (lambda root: (root / "train/Song").mkdir(parents=True), r"; .*/train/Song is empty$"),
        (
            lambda root: touch(root / "train/Song/a.txt", root / "train/Song/b\n\x1b.wav"),
            r"; .*/train/Song has a\.txt, b\\n\\x1b\.wav$",
        ),
        (
            lambda root: touch(*(root / f"train/Song/{number}.txt" for number in range(9))),
            r"; .*/train/Song has 0\.txt, 1\.txt, 2\.txt, 3\.txt, 4\.txt, 5\.txt and 3 more$",
        ),
        (lambda root: touch(root / "train/a.wav", root / "test/.b"), r"; .*/train has a\.wav; .*/test is empty$"),
        (lambda root: linked(root / "train/a.stem.mp4"), r"train/a\.stem\.mp4 is a broken link \(target gone\)"),
        (lambda root: touch(root / "musdb/train/a"), r"name .*musdb, which has such folders"),
        (lambda root: touch(root / "training/words"), r"it has training/"),
        (lambda root: touch(root / ".DS_Store"), r"it is empty"),
        (
            lambda root: touch(root / "song.mp3"),
            r"it has song\.mp3: songs to train on need their stems; for a new stem .*generate",
        ),
        (
            lambda root: touch(root),
            r"data is a file: --data names a folder of songs .*; for a new stem of a finished song use generate",
        ),
    ],
)
def test_where_there_is_no_song_it_is_said_what_there_is(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        layouts.find_songs(tmp_path / "data")


def test_a_song_that_may_not_be_read_is_not_said_to_be_empty() -> None:
    mine = os.geteuid()
    with tempfile.TemporaryDirectory() as root:  # not pytest's, which other users can't enter
        song = Path(root, "train", "Song")
        song.mkdir(parents=True)
        Path(root).chmod(0o755)
        song.chmod(0)
        os.seteuid(65534 if mine == 0 else mine)
        try:
            with pytest.raises(ValueError, match=rf"; {song} can't be read \(Permission denied\)$"):
                layouts.find_songs(Path(root))
        finally:
            os.seteuid(mine)


def test_a_title_of_several_lines_forges_none(tmp_path: Path) -> None:
    write_stems(tmp_path / "a\nerror: lost", samples=100)
    with pytest.raises(ValueError, match=r"1 songs lie in .* itself \(a\\nerror: lost\): "):
        layouts.find_songs(tmp_path)


def test_three_of_the_songs_without_splits_are_named(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        touch(tmp_path / f"{name}.stem.mp4")
        listed = ", ".join("abcd"[: number + 1][:3]) + (" \\.\\.\\." if number == 3 else "")
        with pytest.raises(ValueError, match=rf"{number + 1} songs lie in .* itself \({listed}\): "):
            layouts.find_songs(tmp_path)


def linked(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to("gone")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_folder_of_one_split_is_not_the_folder_of_songs(tmp_path: Path) -> None:
    write_stems(tmp_path / "train" / "a")
    with pytest.raises(ValueError, match=rf"name the one above it, {tmp_path}"):
        layouts.find_songs(tmp_path / "train")


def test_what_looks_like_a_song_and_is_none_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    write_stems(tmp_path / "train" / "a")
    write_stems(tmp_path / "validation" / "b")
    touch(tmp_path / "train/song.mp3", tmp_path / "train/notes.txt", tmp_path / "pictures/a.png")
    touch(tmp_path / "train/half.stem.mp4.part", tmp_path / "train/.half.stem.mp4.Xy12")
    shutil.copy(musdb18.excerpt_file(), tmp_path / "loose.stem.mp4")
    found = {path.relative_to(tmp_path).as_posix() for path in layouts.overlooked(tmp_path)}
    assert found == {"train/song.mp3", "train/half.stem.mp4.part", "validation", "loose.stem.mp4"}


def test_a_folder_without_its_stems_says_what_it_has(tmp_path: Path) -> None:
    touch(tmp_path / "song/drums.mp3", tmp_path / "song/._drums.wav")
    with pytest.raises(ValueError, match=r"song: no drums\.wav or \.flac, .* \(where .* a silent file\); it has drums\.mp3$"):
        decode.load(source(tmp_path / "song"))


def test_numbered_pairs_of_a_folder_are_one_song(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("0", "1", "10", "A_1", "A_2", "B.1", "B-2", "B 3", "B4"):
        (tmp_path / "train" / f"{name}.npz").touch()
    found = layouts.find_songs(tmp_path)
    assert {song.name: len(song.pairs) for song in found} == {"train": 3, "A": 2, "B": 4}


def test_songs_that_are_not_used_and_stems_that_are_not_heard_are_named(tmp_path: Path) -> None:
    def song(name: str, *stems: str) -> None:
        (tmp_path / name).mkdir(parents=True)
        for stem in stems or STEMS:
            (tmp_path / name / f"{stem}.wav").write_bytes(b"x")

    song("train/.38 Special")
    song("train/One", *STEMS, "guitar", "mixture", "._drums")
    song("train/Two")
    (tmp_path / "train" / "#9 Dream").symlink_to(tmp_path / "gone")
    (tmp_path / "train" / "pair-1.npz").write_bytes(b"x")
    (tmp_path / "train" / "#recycle").symlink_to(tmp_path / "gone")
    assert {path.name for path in layouts.overlooked(tmp_path)} == {".38 Special"}
    songs = layouts.list_songs(tmp_path)
    assert {one.name for one in songs} == {"One", "Two", "#9 Dream", "pair"}
    assert [path.name for path in layouts.further_stems(songs)] == ["guitar.wav"]

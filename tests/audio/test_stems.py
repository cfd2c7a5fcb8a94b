"""Songs are found and decoded: layouts, splits, alignment to the sample, and every kind of damaged file."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_dist.audio import layouts, stem_streams, stems, wav
from p2p_dist.settings.config import STEMS

FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with ffmpeg, which is not installed")


def write_stems(folder: Path, rate: int = 44100, channels: int = 2, samples: int = 4410, suffix: str = ".wav") -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for name in STEMS:
        soundfile.write(folder / f"{name}{suffix}", random.uniform(-0.5, 0.5, (samples, channels)), rate, subtype="PCM_16")
    return folder


def source(path: Path) -> layouts.Source:
    return layouts.source_at(path, "train") or layouts.Source(path.name, "train", path)


def test_songs_are_found_by_split_and_name(tmp_path: Path) -> None:
    for place in ("train/b", "train/a", "test/z", "train/.hidden"):
        write_stems(tmp_path / place)
    shutil.copy(layouts.excerpt_file(), tmp_path / "test" / "An excerpt.stem.mp4")
    (tmp_path / "train" / "notes.txt").write_text("not a song")
    found = layouts.find_songs(tmp_path)
    assert [(song.split, song.name) for song in found] == [
        ("train", "a"), ("train", "b"), ("test", "An excerpt"), ("test", "z"),
    ]  # fmt: skip
    assert all(song.size() > 4 * 4410 for song in found)


def test_a_song_is_its_stems_in_whatever_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another layout is another case of one function: it is found, decoded, and counts as a song everywhere."""
    known = layouts.source_at

    def of_takes(path: Path, split: str) -> layouts.Source | None:
        """SONG/takes/01 drums.wav, as another program might write them."""
        stems = {stem: file for stem in STEMS for file in path.glob(f"takes/*{stem}.wav")}
        return layouts.Source(path.name, split, path, stems) if stems else known(path, split)

    monkeypatch.setattr(layouts, "source_at", of_takes)
    write_stems(tmp_path / "train" / "plain")
    takes = write_stems(tmp_path / "train" / "Odd" / "takes")
    for number, name in enumerate(STEMS):
        (takes / f"{name}.wav").rename(takes / f"{number:02d} {name}.wav")
    odd, plain = layouts.find_songs(tmp_path)
    assert (odd.name, odd.split, len(odd.files()), odd.stem_file) == ("Odd", "train", 4, None)
    there, here = stems.load(odd), stems.load(plain)
    assert all(np.array_equal(there.stems[name], here.stems[name]) for name in STEMS) and stems.header(odd)[2] == 4410
    assert layouts.overlooked(tmp_path, split_by_title=False) == [] and layouts.overlooked(tmp_path.parent) == []
    assert len(layouts.source_at(layouts.excerpt_file(), "train").files()) == 1, "one file holds all stems"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make", [lambda root: None, lambda root: root.mkdir(), lambda root: (root / "train").mkdir(parents=True)]
)
def test_a_folder_without_songs_says_what_is_expected(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=r"data.*train.*test.*SONG\.stem\.mp4"):
        layouts.find_songs(tmp_path / "data")


@given(st.sets(st.text(min_size=1), max_size=30), st.sets(st.text(min_size=1), max_size=30))
def test_adding_songs_moves_none_between_train_and_valid(some: set[str], more: set[str]) -> None:
    before, after = layouts.validation_titles(list(some)), layouts.validation_titles(list(some | more))
    assert before == after & some or (not before and some <= after), "where all were held out, nothing would be learnt"


def test_about_a_seventh_is_held_out_for_validation() -> None:
    titles = [f"Title {number}" for number in range(2000)]
    assert 0.11 < len(layouts.validation_titles(titles)) / len(titles) < 0.17


def test_musdb18_keeps_its_own_validation_songs() -> None:
    known = layouts.musdb_settings()["validation_tracks"]
    assert len(known) == 14
    assert layouts.validation_titles([*known, "Another"]) == set(known)
    own = [f"Title {number}" for number in range(100)]
    assert layouts.validation_titles([known[0], *own]) >= layouts.validation_titles(own) != set(), "one of its songs is not all"


def test_validation_never_takes_all_there_is_to_train_on() -> None:
    """Thesis pairs are often called train_0.npz: the hash would hold out the song "train"."""
    assert layouts.validation_titles(["train", *map(str, range(50))]) >= {"train"}
    assert layouts.validation_titles(["train"]) == set()


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", "lost+found", "._Song", ".DS_Store", "#recycle", "~snapshot", "$RECYCLE.BIN"]
)
def test_what_machines_leave_is_passed_over(tmp_path: Path, name: str) -> None:
    write_stems(tmp_path / "train" / "a")
    (tmp_path / "train" / name / "a").mkdir(parents=True)
    assert [song.name for song in layouts.find_songs(tmp_path)] == ["a"]
    assert layouts.overlooked(tmp_path) == []


def test_a_song_with_such_a_name_is_one(tmp_path: Path) -> None:
    write_stems(tmp_path / "train" / "#1 hit")
    (tmp_path / "train" / "@home").mkdir()
    (tmp_path / "train" / "@home" / "drums.mp3").touch()
    shutil.copy(layouts.excerpt_file(), tmp_path / "train" / "~.stem.mp4")
    (tmp_path / "train" / "Thumbs.db").touch()
    assert {song.name for song in layouts.find_songs(tmp_path)} == {"#1 hit", "@home", "~"}


def test_letters_of_names_may_be_large_or_small(tmp_path: Path) -> None:
    """Folders of splits, stems and suffixes, as Windows, macOS and DAWs write them; the exact name comes first."""
    folder = write_stems(tmp_path / "Train" / "Daw")
    before = stems.load(source(folder))
    for file in sorted(folder.iterdir()):
        file.rename(folder / file.name.capitalize().replace("wav", "WAV"))
    soundfile.write(folder / "DRUMS.flac", np.zeros((4410, 2)), 44100)
    shutil.copy(layouts.excerpt_file(), tmp_path / "Train" / "LOUD.STEM.MP4")
    write_stems(tmp_path / "TEST" / "a")
    found = layouts.find_songs(tmp_path)
    assert [(song.split, song.name) for song in found] == [("train", "Daw"), ("train", "LOUD"), ("test", "a")]
    after = stems.load(found[0])
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
    with pytest.raises(ValueError, match=r"has train/: its songs are split already"):
        layouts.find_songs(tmp_path, split_by_title=True)


@given(st.sets(st.text(min_size=1), min_size=1, max_size=30))
def test_some_titles_and_never_all_are_for_tests(titles: set[str]) -> None:
    chosen = layouts.testing_titles(list(titles))
    assert chosen < titles and (bool(chosen) or len(titles) == 1)


def test_about_a_fifth_of_the_titles_are_for_tests_whatever_is_held_out_for_validation() -> None:
    titles = [f"Title {number}" for number in range(2000)]
    chosen = layouts.testing_titles(titles)
    assert 0.17 < len(chosen) / len(titles) < 0.23
    assert 0.1 < len(layouts.validation_titles(titles) & chosen) / len(chosen) < 0.19, "by another hash"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda root: touch(root / "train/Song/drums.mp3", root / "train/Song/bass.mp3"),
            r"Song it has bass\.mp3, drums\.mp3: mp3",
        ),
        (lambda root: touch(root / "train/a.wav"), r"train it has a\.wav"),
        (lambda root: touch(root / "musdb/train/a"), r"name .*musdb, which has such folders"),
        (lambda root: touch(root / "training/words"), r"it has training/"),
        (lambda root: touch(root / ".DS_Store"), r"it is empty"),
    ],
)
def test_where_there_is_no_song_it_is_said_what_there_is(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        layouts.find_songs(tmp_path / "data")


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
    shutil.copy(layouts.excerpt_file(), tmp_path / "loose.stem.mp4")
    found = {path.relative_to(tmp_path).as_posix() for path in layouts.overlooked(tmp_path)}
    assert found == {"train/song.mp3", "validation", "loose.stem.mp4"}


def test_a_folder_without_its_stems_says_what_it_has(tmp_path: Path) -> None:
    touch(tmp_path / "song/drums.mp3", tmp_path / "song/._drums.wav")
    with pytest.raises(ValueError, match=r"song: no drums\.wav or \.flac, .*; it has drums\.mp3$"):
        stems.load(source(tmp_path / "song"))


def test_numbered_pairs_of_a_folder_are_one_song(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("0", "1", "10", "A_1", "A_2"):
        (tmp_path / "train" / f"{name}.npz").touch()
    found = layouts.find_songs(tmp_path)
    assert {song.name: len(song.pairs) for song in found} == {"train": 3, "A": 2}


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(44100, 2, ".wav"), (8000, 1, ".flac"), (48000, 3, ".wav")])
def test_folders_are_read_at_their_own_rate_and_channels(tmp_path: Path, rate: int, channels: int, suffix: str) -> None:
    song = stems.load(source(write_stems(tmp_path / "song", rate, channels, 900, suffix)))
    assert song.sample_rate == rate and list(song.stems) == list(STEMS)
    written = np.random.default_rng(1).uniform(-0.5, 0.5, (900, channels))
    for name in STEMS[:1]:
        assert song.stems[name].dtype == np.float32
        np.testing.assert_allclose(song.stems[name], written, atol=1 / 32767)


def test_only_the_stems_asked_for_are_decoded(tmp_path: Path) -> None:
    folder = write_stems(tmp_path / "song")
    (folder / "vocals.wav").unlink()
    assert list(stems.load(source(folder), ["bass", "drums"]).stems) == ["drums", "bass"]
    with pytest.raises(ValueError, match=r"song: no vocals\.wav"):
        stems.load(source(folder))


def test_the_mix_is_the_sum_of_the_stems() -> None:
    song = stems.load(source(layouts.excerpt_file()))
    total = sum(song.stems[name].astype(np.float64) for name in ("bass", "vocals"))
    np.testing.assert_allclose(song.sum_of(["bass", "vocals"]), total, atol=1e-6)


def damage_length(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "bass.wav")
    soundfile.write(folder / "drums.wav", np.concatenate([samples, np.zeros((44101, 2))]), rate)


def damage_rate(folder: Path) -> None:
    samples, _ = soundfile.read(folder / "other.wav")
    soundfile.write(folder / "other.wav", samples, 22050)


def damage_numbers(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "drums.wav")
    samples[100] = np.nan
    soundfile.write(folder / "drums.wav", samples, rate, subtype="FLOAT")


def damage_range(folder: Path) -> None:
    soundfile.write(folder / "drums.wav", np.full((4410, 2), 1e36), 44100, subtype="FLOAT")


def damage_header(folder: Path) -> None:
    """What ffmpeg leaves when it can't go back: no length. A header may also claim any."""
    (folder / "drums.wav").rename(folder / "whole.wav")
    soundfile.write(folder / "drums.flac", *soundfile.read(folder / "whole.wav"))
    content = bytearray((folder / "drums.flac").read_bytes())
    content[21] &= 0xF0  # the length is 36 bits of the first block, which begins at 8
    content[22:26] = bytes(4)
    (folder / "drums.flac").write_bytes(content)


def damage_to_a_huge_header(folder: Path) -> None:
    damage_header(folder)
    content = bytearray((folder / "drums.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = bytes([0xFF] * 4)
    (folder / "drums.flac").write_bytes(content)


def damage_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def damage_kind(folder: Path) -> None:
    (folder / "vocals.wav").write_text("this is no sound")


def damage_to_nothing(folder: Path) -> None:
    (folder / "vocals.wav").write_bytes(b"")


def damage_to_no_samples(folder: Path) -> None:
    for name in STEMS:
        soundfile.write(folder / f"{name}.wav", np.zeros((0, 2)), 44100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_length,
            r"the stems differ in length \(drums 1.100 s, 48511 samples, bass 0.100 s, 4410 samples.*by more than 1 s",
        ),
        (damage_rate, "the stems differ in rate"),
        (damage_numbers, r"drums\.wav: stem drums contains NaN or infinite samples"),
        (damage_range, r"drums\.wav: stem drums holds samples of 1e\+36, full scale is 1"),
        (damage_header, r"drums\.flac: a streamed flac without its length.*ffmpeg -i"),
        (damage_to_a_huge_header, r"drums\.flac: can't be read as audio"),
        (damage_link, r"song: broken link \(target nowhere\)"),
        (damage_kind, "vocals.wav: can't be read as audio"),
        (damage_to_nothing, "vocals.wav: can't be read as audio"),
        (damage_to_no_samples, "no samples"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_stems(tmp_path / "song")
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        stems.load(source(folder))
    assert "song" in str(error.value)


@pytest.mark.parametrize("shorter", [1, 4409, 44100 - 4410])
def test_stems_of_nearly_one_length_end_in_silence(tmp_path: Path, shorter: int) -> None:
    folder = write_stems(tmp_path / "song", samples=44100)
    samples, rate = soundfile.read(folder / "bass.wav", dtype="float32")
    soundfile.write(folder / "bass.wav", samples[: len(samples) - shorter], rate)
    song = stems.load(source(folder))
    assert {len(sound) for sound in song.stems.values()} == {44100}
    np.testing.assert_array_equal(song.stems["bass"][: 44100 - shorter], samples[: 44100 - shorter])
    assert not song.stems["bass"][44100 - shorter :].any()
    _, (drums, both) = stems.load_sums(source(folder), [("drums",), ("bass", "other")])
    assert (drums.filled, both.filled) == (0, shorter)


def rewrite(path: Path, place: bytes, offset: int, value: int) -> None:
    """Put a number of 32 bits so many bytes behind a word of a file."""
    content = bytearray(path.read_bytes())
    begin = content.index(place) + offset
    content[begin : begin + 4] = value.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_wav_files_that_are_all_cut_at_one_byte_are_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    """libsndfile reads what is there, so that all four agree on the shorter length."""
    folder = write_stems(tmp_path / "song", samples=44100)
    for path in folder.iterdir():
        soundfile.write(path, *soundfile.read(path), subtype=kind)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"drums\.wav: cut short, its header says 1\.000 s, 0\.(500|999) s"):
        stems.load(source(folder))


def test_a_long_wav_that_is_cut_is_cut_short(tmp_path: Path) -> None:
    """RF64, whose length stands in a chunk of its own."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((4410, 2)), 44100, format="RF64", subtype="PCM_16")
    assert wav.whole(path) == path
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"a\.wav: cut short, its header says 0\.100 s"):
        wav.whole(path)


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x7FFFFFD3, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path: Path, length: int) -> None:
    """Who wrote it could not go back to fill in the length."""
    folder = write_stems(tmp_path / "song")
    before = stems.load(source(folder))
    rewrite(folder / "drums.wav", b"data", 4, length)
    rewrite(folder / "drums.wav", b"RIFF", 4, length + 36 & 0xFFFFFFFF)
    np.testing.assert_array_equal(stems.load(source(folder)).stems["drums"], before.stems["drums"])


def test_a_wav_without_samples_has_none_though_chunks_follow(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), 44100)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content + b"LIST\x05\0\0\0words\0")
    assert wav.whole(tmp_path / "a.wav") == tmp_path / "a.wav"


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60))
def test_a_damaged_wav_header_is_no_traceback(content: bytes, place: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        soundfile.write(path, np.zeros((10, 2)), 44100)
        whole = path.read_bytes()
        path.write_bytes(whole[:place] + content + whole[place + len(content) :])
        with contextlib.suppress(ValueError):
            wav.whole(path)


@pytest.mark.parametrize("size", [0, 100, 5000, 0.5, 0.98])
def test_a_stem_file_cut_anywhere_is_named(tmp_path: Path, size: float) -> None:
    whole = layouts.excerpt_file().read_bytes()
    path = tmp_path / "cut.stem.mp4"
    path.write_bytes(whole[: int(size if size > 1 else size * len(whole))])
    with pytest.raises(ValueError, match=r"cut\.stem\.mp4: (not decodable|cut short|[04] sound streams, a stem file has 5)"):
        stems.load(source(path))


def test_a_text_file_with_the_name_of_a_stem_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.stem.mp4"
    path.write_text("words " * 1000)
    with pytest.raises(ValueError, match=r"words\.stem\.mp4: not decodable as a stem file"):
        stems.load(source(path))


def write_stem_file(
    path: Path, sounds: list[np.ndarray], rates: list[int] | None = None, tags: list[dict[str, str]] | None = None
) -> Path:
    """A stem file of AAC streams, each (samples, 2); the encoder puts 1024 samples before them, an edit list hides those."""
    with av.open(str(path), "w", format="mp4") as file:
        streams = [file.add_stream("aac", rate=rate, layout="stereo") for rate in rates or [44100] * len(sounds)]
        for stream, tag in zip(streams, tags or [], strict=bool(tags)):  # before the header is written
            stream.metadata.update(tag)
        for stream, sound in zip(streams, sounds, strict=True):
            stream.bit_rate = 256_000
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T, np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = stream.rate, 0
            for part in (frame, None):
                file.mux(stream.encode(part))
    return path


def cut_by_edit_list(whole: Path, path: Path, samples: int, streams: Sequence[int] = range(5)) -> Path:
    """The same packets, of which an edit list leaves out the first samples; of fewer than none, they begin later."""
    with av.open(str(whole)) as old, av.open(str(path), "w", format="mp4") as new:
        if hasattr(new, "add_stream_from_template"):
            copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams.audio}
        else:  # PyAV 13
            copies = {stream.index: new.add_stream(template=stream) for stream in old.streams.audio}
        for packet in old.demux():
            if packet.dts is not None:
                if packet.stream.index in streams:
                    packet.pts, packet.dts = packet.pts - samples, packet.dts - samples
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path


def clicks(samples: int = 30_000) -> list[np.ndarray]:
    """Five streams of noise with one click each, at sample 5000, 6000, ..."""
    sounds = [0.02 * np.random.default_rng(n).standard_normal((samples, 2)) for n in range(5)]
    for number, sound in enumerate(sounds):
        sound[5000 + 1000 * number] = 0.9
    return sounds


@pytest.mark.parametrize("cut", [0, 2500])
def test_every_stream_begins_where_its_sound_begins(tmp_path: Path, cut: int) -> None:
    """What the encoder put before the sound, and what an edit list leaves out, is not there: needs no ffmpeg to compare."""
    path = write_stem_file(tmp_path / "whole.stem.mp4", clicks())
    if cut:
        path = cut_by_edit_list(path, tmp_path / "cut.stem.mp4", cut)
    song = stems.load(source(path))
    for number, name in enumerate(STEMS, 1):
        assert abs(int(np.abs(song.stems[name][:, 0]).argmax()) - (5000 + 1000 * number - cut)) <= 2
        # The encoder fills its last frame, and ffmpeg keeps that; from 8.1 on it writes, and follows, where the sound ends.
        assert len(song.stems[name]) in (30_000 - cut, -(-30_000 // 1024) * 1024 - cut)


@FFMPEG
@pytest.mark.parametrize("kind", ["MUSDB18", "encoder's delay", "edit list"])
def test_stem_files_decode_as_ffmpeg_decodes_them(tmp_path: Path, kind: str) -> None:
    """Offset (encoder delay, edit list) and length are ffmpeg's, samples to the rounding of 16 bits."""
    path = layouts.excerpt_file()
    if kind != "MUSDB18":
        path = write_stem_file(tmp_path / "made.stem.mp4", clicks())
    if kind == "edit list":
        path = cut_by_edit_list(path, tmp_path / "cut.stem.mp4", 2500)
    song = stems.load(source(path))
    for number, name in enumerate(STEMS, 1):
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{number}", "-f", "s16le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        expected = np.frombuffer(raw, "<i2").reshape(-1, 2) / 32768
        assert song.stems[name].shape == expected.shape
        assert np.abs(song.stems[name].clip(-1, 32767 / 32768) - expected).max() <= 1 / 32768


def test_a_stem_file_that_lacks_a_stream_is_named(tmp_path: Path) -> None:
    path = write_stem_file(tmp_path / "four.stem.mp4", clicks()[:4])
    with pytest.raises(ValueError, match=r"four\.stem\.mp4: 4 sound streams, a stem file has 5"):
        stems.load(source(path))


NAMES = ("Vocals", "mixture", "Bass", "Drums", "other")
"""Of five streams, in another order than MUSDB18's."""


def stems_by_click(path: Path) -> list[int]:
    """Which stream each stem was taken from."""
    song = stems.load(source(path))
    return [round((int(np.abs(song.stems[name][:, 0]).argmax()) - 5000) / 1000) for name in STEMS]


def test_streams_are_taken_by_the_names_in_the_file(tmp_path: Path) -> None:
    path = write_stem_file(tmp_path / "a.stem.mp4", clicks(), tags=[{"handler_name": name} for name in NAMES])
    assert stems_by_click(path) == [3, 2, 4, 0]
    _, (drums,) = stems.load_sums(source(path), [("drums",)])
    assert not drums.by_position
    unnamed = write_stem_file(tmp_path / "b.stem.mp4", clicks(), tags=[{"handler_name": "SoundHandler"}] * 5)
    assert stems_by_click(unnamed) == [1, 2, 3, 4]
    _, (drums,) = stems.load_sums(source(unnamed), [("drums",)])
    assert drums.by_position


@pytest.mark.parametrize("tag", ["title", "name", "handler_name"])
def test_any_tag_may_name_a_stream(tag: str) -> None:
    tags = [{tag: name, "language": "und"} for name in NAMES]
    places, by_position = stem_streams.find(Path("nowhere.stem.mp4"), tags)
    assert (list(places), list(places.values()), by_position) == (list(STEMS), [3, 2, 4, 0], False)


def test_four_named_streams_need_no_mixture(tmp_path: Path) -> None:
    names = ["04 - Vox", "03 Others", "Bass", "DRUM"]
    path = write_stem_file(tmp_path / "a.stem.mp4", clicks()[:4], tags=[{"handler_name": name} for name in names])
    assert stems_by_click(path) == [3, 2, 1, 0]


@pytest.mark.parametrize("names", [("", "Bass", "Drums", "", ""), ("", "Drums", "Drums", "Other", "Vocals")])
def test_titles_that_contradict_the_order_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write_stem_file(tmp_path / "a.stem.mp4", clicks(), tags=[{"handler_name": name} for name in names])
    with pytest.raises(ValueError, match=r"a\.stem\.mp4: its streams are titled .*drums"):
        stems.load(source(path))


def test_the_list_of_native_instruments_names_the_streams(tmp_path: Path) -> None:
    """MUSDB18's own files have one, in its own order."""
    _, (drums,) = stems.load_sums(source(layouts.excerpt_file()), [("drums",)])
    assert not drums.by_position
    content = layouts.excerpt_file().read_bytes()
    swapped = content.replace(b'"name": "Drums"', b'"name": "Xxxxx"').replace(b'"name": "Bass"', b'"name":"Drums"')
    swapped = swapped.replace(b'"name": "Xxxxx"', b'"name": "Bass" ')
    assert len(swapped) == len(content) and swapped != content
    (tmp_path / "a.stem.mp4").write_bytes(swapped)
    there, here = stems.load(source(layouts.excerpt_file())), stems.load(source(tmp_path / "a.stem.mp4"))
    assert np.array_equal(here.stems["drums"], there.stems["bass"])
    assert np.array_equal(here.stems["bass"], there.stems["drums"])


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_a_damaged_list_of_names_is_none(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.stem.mp4"
        boxes = content
        for kind in (b"stem", b"udta", b"moov"):
            boxes = (len(boxes) + 8).to_bytes(4, "big") + kind + boxes
        for whole in (boxes, content, boxes[:-1]):
            path.write_bytes(whole)
            assert stem_streams.find(path, [{}] * 5)[1]


def test_a_stem_file_with_a_damaged_header_is_named(tmp_path: Path) -> None:
    """One byte of it, so that a stream's table of codecs is not found."""
    path = write_stem_file(tmp_path / "flipped.stem.mp4", clicks())
    content = bytearray(path.read_bytes())
    second = content.index(b"mp4a", content.index(b"mp4a", content.index(b"moov")) + 1)
    content[content.rindex(b"stsd", 0, second)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.stem\.mp4: no decoder for drums: the header is damaged"):
        stems.load(source(path))


def test_a_stem_that_begins_later_than_the_others_is_named(tmp_path: Path) -> None:
    """What all of them wait for alike is no reason."""
    whole = write_stem_file(tmp_path / "whole.stem.mp4", clicks())
    later = cut_by_edit_list(whole, tmp_path / "later.stem.mp4", -22050, [1])
    with pytest.raises(ValueError, match=r"later\.stem\.mp4: the stems begin at different times \(.*drums 0\.4"):
        stems.load(source(later))
    together = stems.load(source(cut_by_edit_list(whole, tmp_path / "together.stem.mp4", -4410)))
    begins = [int(np.abs(together.stems[name][:, 0]).argmax()) for name in STEMS]
    assert np.ptp(np.diff(begins)) <= 2 and abs(begins[1] - begins[0] - 1000) <= 2


def test_stem_files_whose_streams_differ_are_named(tmp_path: Path) -> None:
    shorter = [sound[: 80_000 - 15_000 * number] for number, sound in enumerate(clicks(80_000))]
    with pytest.raises(ValueError, match=r"short\.stem\.mp4: the stems differ in length \(drums 1\.4"):
        stems.load(source(write_stem_file(tmp_path / "short.stem.mp4", shorter)))
    with pytest.raises(ValueError, match=r"rate\.stem\.mp4: the stems differ in rate"):
        stems.load(source(write_stem_file(tmp_path / "rate.stem.mp4", clicks(), [44100, 44100, 44100, 44100, 48000])))


@pytest.mark.parametrize("held", [1, 3, 16])
def test_sums_are_those_of_the_stems_however_they_arrive(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also the mean of the channels alone; and level, peak and clipped samples are those of the whole sum."""
    monkeypatch.setattr(stems, "_HELD", held)
    path = cut_by_edit_list(write_stem_file(tmp_path / "a.stem.mp4", [3 * s for s in clicks()]), tmp_path / "b.stem.mp4", 700)
    song = stems.load(source(path))
    sides = [("bass", "other", "vocals"), ("drums",)]
    rate, sums = stems.load_sums(source(path), sides)
    _, means = stems.load_sums(source(path), sides, downmix=True)
    for side, found, mean in zip(sides, sums, means, strict=True):
        expected = song.sum_of(side)
        np.testing.assert_array_equal(found.sound, expected)
        np.testing.assert_array_equal(mean.sound[:, 0], stems.mono(expected, rate, rate))
        assert found.peak == mean.peak == np.abs(expected).max()
        assert found.clipped == mean.clipped == (np.abs(expected) >= stems.FULL_SCALE).sum() > 0
        assert found.power == pytest.approx((expected.astype(np.float64) ** 2).mean(), rel=1e-6)


def test_a_part_of_a_song_is_that_part_of_the_whole(tmp_path: Path) -> None:
    song = source(write_stems(tmp_path / "song", rate=8000, samples=30_000))
    _, (whole,) = stems.load_sums(song, [("bass", "other")])
    for begin, end in ((0, 1), (1, 3), (3, 9), (5, 6)):
        _, (part,) = stems.load_sums(song, [("bass", "other")], part=(begin, end))
        np.testing.assert_array_equal(part.sound, whole.sound[8000 * begin : 8000 * end])
        assert (part.peak, part.power) == (whole.peak, whole.power)


def test_headers_say_how_much_there_is_to_decode(tmp_path: Path) -> None:
    write_stems(tmp_path / "flac", 8000, 3, 900, ".flac")
    assert stems.header(source(tmp_path / "flac")) == (8000, 3, 900)
    rate, channels, samples = stems.header(source(layouts.excerpt_file()))
    assert (rate, channels) == (44100, 2) and 0 <= samples - 262_000 < 10_000
    (tmp_path / "bad.stem.mp4").write_text("words")
    for bad in ("flac/drums.flac", "bad.stem.mp4", "nothing"):
        assert stems.header(source(tmp_path / bad))[2] in (0, 900)


def test_mono_is_what_librosa_loads(tmp_path: Path) -> None:
    import librosa

    folder = write_stems(tmp_path / "song", samples=30000)
    song = stems.load(source(folder), ["bass"])
    expected, _ = librosa.load(folder / "bass.wav", sr=22050)
    np.testing.assert_array_equal(stems.mono(song.stems["bass"], 44100, 22050), expected)

"""Songs laid out as MoisesDB and Slakh2100 are: found, named, folded into four stems, decoded, and left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from p2p_dist.audio import layouts, other_datasets, stems
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.song_files import source, write_stems

RANDOM = np.random.default_rng(3)


def write(path: Path, samples: int = 4410, rate: int = 44100) -> np.ndarray:
    """A sound file of noise; what is read of it, float32 (samples, 2)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.round(RANDOM.uniform(-0.2, 0.2, (samples, 2)) * 32768) / 32768
    soundfile.write(path, sound, rate, subtype="PCM_16")
    return sound.astype(np.float32)


def write_moisesdb(folder: Path, **stems: list[int]) -> dict[str, list[np.ndarray]]:
    """A song of MoisesDB with files of so many samples in the folder of each stem; what they hold."""
    sounds = {
        name: [write(folder / name / f"{name}-{number}.wav", samples) for number, samples in enumerate(lengths)]
        for name, lengths in stems.items()
    }
    about = [
        {"stemName": name, "tracks": [{"extension": "wav", "id": f"{name}-{n}"} for n in range(len(of))]}
        for name, of in sounds.items()
    ]
    (folder / "data.json").write_text(json.dumps({"artist": "An Artist", "song": "Her Song", "genre": "pop", "stems": about}))
    return sounds


def write_slakh(folder: Path, *classes: str, drums: int = -1) -> list[np.ndarray]:
    """A song of Slakh2100 with an instrument of each class; what they hold."""
    names = [f"S{number:02d}" for number in range(len(classes))]
    sounds = [write(folder / "stems" / f"{name}.flac") for name in names]
    about = {
        name: {"inst_class": of, "is_drum": number == drums, "audio_rendered": True, "program_num": 1}
        for number, (name, of) in enumerate(zip(names, classes, strict=True))
    }
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": "1a", "audio_dir": "stems", "stems": about}))
    write(folder / "mix.flac")
    return sounds


def test_a_song_of_moisesdb_is_the_sum_of_its_files(tmp_path: Path) -> None:
    """Behind the end of a file is silence, as in the package moisesdb; a stem that the song does not have is silent."""
    sounds = write_moisesdb(
        tmp_path / "train" / "01d-uuid",
        drums=[4410, 4410],
        vocals=[1000],
        guitar=[100_000],
        piano=[3000],
        percussion=[7],
        bass=[],
    )
    (song,) = layouts.find_songs(tmp_path)
    assert (song.name, song.split, len(song.files())) == ("An Artist - Her Song", "train", 6)
    assert stems.header(song) == (44100, 2, 100_000)
    found = decode.load(song)
    whole = np.zeros((100_000, 2), np.float32)
    for stem, names in {
        "drums": ["drums"],
        "vocals": ["vocals"],
        "other": ["guitar", "percussion", "piano"],
        "bass": [],
    }.items():
        expected = whole.copy()
        for sound in (sound for name in names for sound in sounds[name]):
            expected[: len(sound)] += sound
        np.testing.assert_array_equal(found.stems[stem], expected)
    assert len(decode.load(song, ["vocals"]).stems["vocals"]) == 100_000, "as long as the song, whatever is asked for"
    silent = decode.load(song, ["bass"])
    assert silent.sample_rate == 44100 and silent.stems["bass"].shape == (100_000, 2) and not silent.stems["bass"].any()


def test_every_stem_of_moisesdb_is_folded(tmp_path: Path) -> None:
    """The table is that of the package: 11 stems, all but three of them `other`."""
    folded = dict(other_datasets.MOISESDB)
    assert len(folded) == 11 and [folded.pop(name) for name in ("vocals", "bass", "drums")] == ["vocals", "bass", "drums"]
    assert set(folded.values()) == {"other"}
    write_moisesdb(tmp_path / "a", **{name: [10] for name in other_datasets.MOISESDB})
    song = source(tmp_path / "a")
    assert {stem: len(paths) for stem, paths in song.stems.items()} == {"drums": 1, "bass": 1, "other": 8, "vocals": 1}  # type: ignore[arg-type]
    assert all(path.parent.name in other_datasets.MOISESDB for path in song.sounds())


@pytest.mark.parametrize("text", ["{", '{"song": 1, "artist": "a"}', '{"song": "\\ud800", "artist": "a"}', "[]"])
def test_a_song_of_moisesdb_without_its_title_is_called_as_its_folder(tmp_path: Path, text: str) -> None:
    write_moisesdb(tmp_path / "01d-uuid", drums=[10])
    (tmp_path / "01d-uuid" / "data.json").write_text(text)
    assert source(tmp_path / "01d-uuid").name == "01d-uuid"


def test_a_song_of_slakh_is_folded_by_the_classes_of_its_instruments(tmp_path: Path) -> None:
    classes = ("Drums", "Bass", "Guitar", "Strings (continued)", "Percussive")
    for split, track in (("train", "Track00001"), ("validation", "Track01501"), ("test", "Track01876")):
        sounds = write_slakh(tmp_path / split / track, *classes, drums=4)
    write_slakh(tmp_path / "omitted" / "Track00002", "Bass")
    assert [(song.split, song.name) for song in layouts.find_songs(tmp_path)] == [
        ("train", "Track00001"), ("valid", "Track01501"), ("test", "Track01876"),
    ]  # fmt: skip
    assert [path.name for path in layouts.overlooked(tmp_path)] == ["omitted"]
    found = decode.load(layouts.find_songs(tmp_path)[2])
    np.testing.assert_array_equal(found.stems["drums"], sounds[0] + sounds[4])
    np.testing.assert_array_equal(found.stems["bass"], sounds[1])
    np.testing.assert_array_equal(found.stems["other"], sounds[2] + sounds[3])
    assert not found.stems["vocals"].any()


def test_another_class_in_the_table_is_another_song(tmp_path: Path) -> None:
    """It decides which stem a file is part of."""
    write_slakh(tmp_path / "a", "Bass", "Guitar")
    before = source(tmp_path / "a")
    table = tmp_path / "a" / "metadata.yaml"
    stamp = before.stamp()
    assert table in before.files()
    table.write_text(table.read_text().replace("Guitar", "Bass"))
    assert source(tmp_path / "a").stamp() != stamp and len(source(tmp_path / "a").stems["bass"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "stems: 1", "stems: {S00: {inst_class: Bass}}", "stems: {S01: {inst_class: Bass, is_drum: false}}", "a: [", "long"],
)
def test_a_song_of_slakh_with_a_damaged_table_is_left_out_by_itself(tmp_path: Path, text: str) -> None:
    write_slakh(tmp_path / "train" / "Track00001", "Bass")
    write_slakh(tmp_path / "train" / "Track00002", "Bass")
    table = tmp_path / "train" / "Track00002" / "metadata.yaml"
    table.write_text(table.read_text() + "#" * (1 << 20) if text == "long" else text)
    good, bad = layouts.list_songs(tmp_path)
    assert decode.load(good).stems["bass"].any()
    with pytest.raises(ValueError, match=r"Track00002/metadata\.yaml does not tell the instrument of each file in stems/"):
        decode.load(bad)


def test_letters_may_be_large_and_what_machines_leave_is_passed_over(tmp_path: Path) -> None:
    write_moisesdb(tmp_path / "train" / "m", drums=[10], bass=[10])
    write_slakh(tmp_path / "train" / "s", "Bass")
    for folder in (tmp_path / "train" / "m" / "drums", tmp_path / "train" / "s" / "stems"):
        (file,) = folder.iterdir()
        file.rename(file.with_suffix(file.suffix.upper()))
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7")
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for song in layouts.list_songs(tmp_path):
        assert {name: bool(sound.any()) for name, sound in decode.load(song).stems.items()}["bass"]
        assert not [path for path in song.files() if path.name.startswith(".")]
    assert layouts.overlooked(tmp_path) == []


def test_a_folder_is_only_such_a_song_without_stems_of_its_own(tmp_path: Path) -> None:
    """Files beside the stems change nothing in a song that was read before, nor do tables without sound make one."""
    plain = write_stems(tmp_path / "plain")
    before = source(plain)
    (plain / "data.json").write_text("{}")
    (plain / "metadata.yaml").write_text("stems: {}")
    assert source(plain) == before
    for name in ("data.json", "metadata.yaml"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "empty" / name).write_text("{}")
    assert source(tmp_path / "empty").files() == [] and set(STEMS) == set(before.stems)


def test_files_that_differ_or_are_damaged_are_named(tmp_path: Path) -> None:
    write_moisesdb(tmp_path / "a", drums=[5000, 5000])
    song, file = source(tmp_path / "a"), tmp_path / "a" / "drums" / "drums-1.wav"
    write(file, rate=22050)
    with pytest.raises(ValueError, match=r"differ in rate or channels \(drums 44100 Hz x 2, drums 22050 Hz x 2\)"):
        decode.load(song)
    sound = np.zeros((5000, 2))
    sound[4000] = np.nan
    soundfile.write(file, sound, 44100, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"drums-1\.wav: stem drums contains NaN"):
        decode.load(song)
    file.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"drums-1\.wav"):
        decode.load(song)
    with pytest.raises(ValueError, match="none of its files can be read as audio"):
        decode.load(song, ["bass"])
    file.unlink()
    with pytest.raises(ValueError, match=r"drums-1\.wav: can't be read \(No such file or directory\)"):
        decode.load(song)

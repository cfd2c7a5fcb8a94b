"""The command that makes the starter model, in small: what it learns from and writes, and that it writes the same again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))

import starter

from p2p_dist.audio.strokes import RATE
from p2p_dist.data.composed import render
from p2p_dist.generate.model import find_model
from tests.audio.strokes import strokes
from tests.generate import drums

SECONDS = 8.0


def write_song(folder: Path, stretch: float = 1.0) -> None:
    """Kick, snare and hats at 120 beats a minute over chords."""
    beats = np.arange(0.1, SECONDS - 0.5, 0.5) * stretch
    played = {"kick": beats[::2], "snare": beats[1::2], "closed": (beats[:-1] + 0.25 * stretch)}
    made = sum(strokes(kind, times[times < SECONDS - 0.2], SECONDS) for kind, times in played.items())
    silence = np.zeros(len(made))
    chords = drums.chords(SECONDS, 120 / stretch)
    folder.mkdir(parents=True)
    for stem, one in {"drums": 0.5 * made, "bass": chords, "other": silence, "vocals": silence}.items():
        soundfile.write(folder / f"{stem}.wav", one, drums.RATE, subtype="FLOAT")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Songs that may be learnt from, others, one to measure, and an excerpt like the thesis's."""
    for number, name in enumerate(("evr/train/EVR - A", "evr/train/EVR - B", "practice/train/freedoom - C")):
        write_song(tmp_path / name, 1 + 0.1 * number)
    for name in ("evr/test/EVR - Test", "practice/train/openmsx - GPL", "practice/test/freedoom - Test", "evr/train/Other"):
        write_song(tmp_path / name)
    (tmp_path / "thesis_clips").mkdir()
    for part in ("input", "output", "target"):
        heard, played = (soundfile.read(tmp_path / "evr/test/EVR - Test" / f"{stem}.wav")[0] for stem in ("bass", "drums"))
        soundfile.write(tmp_path / "thesis_clips" / f"1_test_{part}_1.wav", heard + played * (part != "input"), drums.RATE)
    return tmp_path


def make(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, *more: str) -> dict[str, bytes]:
    words = ["--data", str(data), "--out", str(out), "--steps", "2", "--composed", "0", "--workers", "1", *more]
    monkeypatch.setattr(sys, "argv", ["starter.py", *words])
    assert starter.main() == 0
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_it_makes_the_same_model_again_of_the_songs_that_allow_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(monkeypatch, data, data / "made", "--work", str(data / "work"))
    found = find_model(str(data / "made"))
    assert found.name == "starter@2" and found.drummer is not None
    assert sorted(found.drummer.bank.kits) == ["EVR - A", "EVR - B"], "the strokes are those of the real songs"
    assert all(len(stroke.sound) < RATE for kit in found.drummer.bank.kits.values() for stroke in kit.strokes["kick"])
    card = made["README.md"].decode()
    assert "| freedoom - C | contributors to the Freedoom project | BSD 3-Clause |" in card
    said = made["config.json"].decode() + card.replace("TimGM6mb (GPL-2, says Debian's package)", "")
    assert "GPL" not in said and "openmsx" not in said and "EVR - Test" not in card and "Other" not in card
    for name in (
        starter.starter_card.AUTOMATIC,
        starter.starter_card.THESIS,
        "true drums",
        "silence",
        "rock grid, known beats",
    ):
        assert f"| {name} |" in card, name
    assert card.count("Songs: 1. Windows of six seconds: ") == 4
    assert "| grid | " in card and "| distance |" not in card, "of so few windows there is none"
    again = make(monkeypatch, data, data / "made")
    assert again == made, "the same in another place of work, which holds nothing yet"
    (data / "made" / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"also holds 'mine\.txt'"):
        make(monkeypatch, data, data / "made", "--unmeasured")


def test_the_card_alone_is_written_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(monkeypatch, data, data / "made", "--unmeasured")
    assert b"It was not measured." in made["README.md"]
    again = make(monkeypatch, data, data / "made", "--card")
    assert again.keys() == made.keys() and all(again[name] == made[name] for name in made.keys() - {"README.md"})
    assert starter.starter_card.AUTOMATIC in again["README.md"].decode()


def test_excerpts_of_the_thesis_are_compared_as_mixes_and_by_what_they_add(data: Path) -> None:
    """Its output and target are full mixes: of a stem alone the input would be missing."""
    ((song, made),) = starter.clips(data / "thesis_clips")
    parts = starter.without_input(song)
    played = soundfile.read(data / "evr/test/EVR - Test" / "drums.wav")[0][: len(song.heard)]

    def distance(sound: np.ndarray) -> float:
        return float(np.sqrt(np.mean((sound - played) ** 2) / np.mean(played**2)))

    assert distance(parts.drums) < 0.35 < 0.9 < distance(song.drums)
    assert distance(starter.added(2 * made, song.heard)) == pytest.approx(distance(parts.drums), abs=0.05), "at another level"
    assert len(parts.onsets) > 10
    drummer = starter.exported.read_exported(starter.STARTER_FOLDER).drummer
    assert drummer is not None
    mixes = starter.mixes_of(drummer, song, made)
    assert np.array_equal(mixes[starter.starter_card.ALONE], song.heard) and mixes[starter.starter_card.THESIS] is made
    stems = starter.parts_of(drummer, parts, made)
    name = starter.starter_card.AUTOMATIC
    assert np.allclose(mixes[name], song.heard + stems[name]) and stems[name].any()
    assert np.array_equal(stems[starter.starter_card.THESIS], parts.drums), "here it is the target"


def test_composed_songs_are_learnt_from(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes seconds and a sound font: here the song is there already."""
    asked = []
    monkeypatch.setattr(render, "write_song", lambda folder, *rest: asked.append((folder, *rest)))
    for name in ("composed 1-0000 rock", "composed 1-0001 of an earlier call"):
        write_song(data / "work" / "composed" / "train" / name)
    songs = starter.songs_of(data, data / "work", 1)
    assert [song.source.name for of, song in songs if of is starter.COMPOSED] == ["composed 1-0000 rock"]
    assert asked == [(data / "work" / "composed" / "train", 1, 0, 60.0, render.SOUND_FONT)]

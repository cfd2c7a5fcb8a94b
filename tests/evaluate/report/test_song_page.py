"""The page of a song that the generate command made: what it plays, at which level, and what it tells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from p2p_dist.evaluate.report import listening, song_page
from p2p_dist.generate.request import Place, Song

RATE = 8000


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`shown(samples, takes, ...)`: a song, stems with their gains, and what its page is made of."""

    def shown(song: np.ndarray, takes: list[tuple[np.ndarray, float]], begin: int = 0, samples: int | None = None) -> Any:
        soundfile.write(tmp_path / "song.wav", song, RATE, subtype="PCM_24")
        made = []
        for number, (stem, gain) in enumerate(takes, 1):
            soundfile.write(tmp_path / f"a{number}.flac", stem, RATE, subtype="PCM_24")
            names = {"stem": f"a{number}.flac", "mix": f"m{number}.flac", "midi": f"a{number}.mid"}
            files = {kind: {"name": name, "bytes": 1} for kind, name in names.items()}
            made.append({"seed": 6 + number, "gain_db": gain, "files": files})
        record = {
            "song": {"begin_sample": begin, "samples": len(song) - begin if samples is None else samples, "sample_rate": RATE},
            "model": {"name": "band@20", "task": "drums", "step": 20},
            "settings": {"level": -3.0, "format": "flac"},
            "tempo": {"bpm": 120.04, "first_beat": 0.1},
            "takes": made,
            "notes": ["<turned down>"],
        }
        asked: dict[str, Any] = {}
        real = listening.write_listening_page

        def write(*given: Any, **named: Any) -> Path:
            asked.update(named, input=given[2], stems=given[3])
            return real(*given, **named)

        monkeypatch.setattr(song_page, "write_listening_page", write)
        path = song_page.write(Song(tmp_path / "song.wav", Place(tmp_path, "song")), record)
        return asked, path.read_text()

    return shown


def sound(of: listening.Sound) -> np.ndarray:
    return np.concatenate(list(of.blocks()))


def ramp(samples: int, channels: int = 2) -> np.ndarray:
    return np.linspace(-0.4, 0.4, samples)[:, None] * np.linspace(1, 0.5, channels)


def test_song_and_all_takes_are_played_at_the_level_of_the_first(shown: Any) -> None:
    """Each file was turned down by its own gain; the page undoes that, so that takes can be compared."""
    song, stem = ramp(1000), 0.5 * ramp(1000)[::-1]
    asked, text = shown(song, [(stem * 10 ** (-6 / 20), -6.0), (stem * 10 ** (-2 / 20), -2.0)])
    for found, wanted in ((asked["input"], song), *((one, stem) for one in asked["stems"])):
        assert sound(found) == pytest.approx(wanted * 10 ** (-6 / 20), abs=1e-6)
    assert [(one.label, one.meaning) for one in asked["stems"]] == [("take 1", "seed 7"), ("take 2", "seed 8")]
    assert dict(asked["facts"]) == {
        "model": "band@20",
        "trained": "20 steps",
        "seed": "7, 8",
        "stem level": "-3 dB",
        "tempo": "120.0 beats a minute",
        "note": "<turned down>",
    }
    assert asked["downloads"][2:4] == [("take 1: drums (MIDI)", "a1.mid"), ("take 2: drums (FLAC)", "a2.flac")]
    assert "&lt;turned down&gt;" in text


def test_a_part_of_the_song_and_a_stem_of_another_length(shown: Any) -> None:
    song = ramp(1000)
    asked, text = shown(song, [(ramp(450), 0.0)], begin=300, samples=500)
    assert sound(asked["input"]) == pytest.approx(song[300:800], abs=1e-6)
    filled = sound(asked["stems"][0])
    assert filled[:450] == pytest.approx(ramp(450), abs=1e-6) and filled.shape == (500, 2) and not filled[450:].any()
    assert asked["downloads"] == [("drums (FLAC)", "a1.flac"), ("mix (FLAC)", "m1.flac"), ("drums (MIDI)", "a1.mid")]
    assert asked["stems"][0].label == "drums" and asked["made"] == "drums"
    longer = shown(song, [(ramp(700), 0.0)], samples=500)[0]["stems"][0]
    assert sound(longer) == pytest.approx(ramp(700)[:500], abs=1e-6)
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text)
    assert found is not None
    content = json.loads(found[1])
    assert (content["segment"], content["margin"], content["chosen"]) == (10.0, 0.1, 0)
    tracks = content["songs"][0]["tracks"]
    assert {name: track["format"] for name, track in tracks.items()} == {"input": "flac", "take-1": "flac"}


def test_of_many_channels_front_left_and_right_are_played(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    six = ramp(500, 6)
    monkeypatch.setattr("p2p_dist.audio.decode.Decoded.front", (3, 1))
    asked, _ = shown(six, [(six, 0.0)])
    assert sound(asked["input"]) == pytest.approx(six[:, [3, 1]], abs=1e-6)

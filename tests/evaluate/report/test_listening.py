"""The page of one song and its stems: whole without any network, safe against names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2p_dist.evaluate.report import listening
from p2p_dist.evaluate.report.listening import Sound, write_listening_page
from p2p_dist.evaluate.report.loudness import Level
from p2p_dist.evaluate.report.tracks import Track

HOSTILE = 'Öö "ja" & <b>päev</b> \u05e9\u05d9\u05e8 </script><script>document.title = "broken"</script> \'a\''
RATE = 8000


def sound(seconds: float = 1.0, rate: int = RATE, label: str = "take 1") -> Sound:
    samples = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), 2)).astype(np.float32)
    return Sound(label, "seed 0", rate, len(samples), lambda: iter([samples]))


def test_it_asks_for_nothing_outside_its_folder_and_names_stay_names(tmp_path: Path) -> None:
    path = write_listening_page(
        tmp_path,
        HOSTILE,
        sound(),
        [sound(label=HOSTILE), sound(label="take 2")],
        made="drums",
        facts=[("model", HOSTILE)],
        downloads=[("Drums", "a#b %.flac")],
    )
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "index.html" and 'href="a%23b%20%25.flac"' in text
    assert not re.search(r"https?:|url\(|@import|fetch\(|src=", text)
    assert "<b>p" not in text and 'document.title = "broken"' not in text
    written = {item.relative_to(tmp_path / "media").as_posix() for item in (tmp_path / "media").rglob("*.js")}
    assert written == {f"song/{track}/{name}.js" for track in ("input", "take-1", "take-2") for name in ("0", "overview")}


def test_a_later_page_replaces_an_earlier_one(tmp_path: Path) -> None:
    write_listening_page(tmp_path, "a", sound(), [sound(), sound()], made="drums")
    write_listening_page(tmp_path, "a", sound(), [sound()], made="drums")
    assert {item.name for item in (tmp_path / "media" / "song").iterdir()} == {"input", "take-1"}


def test_a_stem_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for other in (sound(1.1), sound(rate=4000)):
        with pytest.raises(ValueError, match=r"take 1 has .* samples at .* Hz, the song 8000 at 8000 Hz"):
            write_listening_page(tmp_path, "a", sound(), [other], made="drums")
    with pytest.raises(ValueError, match="needs a stem"):
        write_listening_page(tmp_path, "a", sound(), [], made="drums")
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious" / "song").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "media").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="media is a link"):
        write_listening_page(tmp_path / "out", "a", sound(), [sound()], made="drums")
    assert not list((tmp_path / "precious" / "song").iterdir())


def test_each_version_is_given_the_gain_of_its_own_loudness() -> None:
    tracks = {
        "input": Track(RATE, 8000, 1, "flac", Level(-18.0, 0.9), None),
        "take-1": Track(RATE, 9000, 1, "flac", Level(-30.0, 0.2), Level(-20.0, 1.0)),
    }
    songs = [listening.ListeningSong("song", "a", tracks)]
    choices = [listening.Choice(f"take-{number}", f"take {number}", "b") for number in (1, 2)]
    content = listening.content(songs, choices, 1, made="drums", chooser="Take", input=("song", "the song", "c"))
    (song,) = content["songs"]
    assert (song["seconds"], song["lufs"]) == (9000 / RATE, -20.0), "the mix could be no louder without clipping"
    assert {name: (one["alone"], one["mixed"]) for name, one in song["tracks"].items()} == {
        "input": (-2.0, None),
        "take-1": (10.0, 0.0),
    }
    assert (content["segment"], content["margin"], content["chosen"]) == (10.0, 0.1, 1)
    assert content["input"] == {"label": "song", "name": "the song", "meaning": "c"}


def test_the_first_take_is_chosen_and_lossless_and_measured_with_the_input(tmp_path: Path, monkeypatch: Any) -> None:
    asked: dict[str, Any] = {}
    real = listening.content

    def content(*given: Any, **named: Any) -> dict[str, Any]:
        asked.update(songs=given[0], chosen=given[2])
        return real(*given, **named)

    monkeypatch.setattr(listening, "content", content)
    write_listening_page(tmp_path, "a", sound(), [sound(), sound(label="take 2")], made="drums")
    tracks = asked["songs"][0].tracks
    assert asked["chosen"] == 0
    assert {name: track.format for name, track in tracks.items()} == {"input": "flac", "take-1": "flac", "take-2": "opus"}
    assert tracks["input"].mixed is None
    assert tracks["take-1"].mixed.peak == pytest.approx(2 * tracks["take-1"].alone.peak)

"""Sounds of the page of a run."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import flac
from p2p_dist.evaluate.report import media, page
from p2p_dist.run.rundir import RunDir, step_name
from tests.audio.flac_tags import read_tags
from tests.evaluate.finished_run import make
from tests.evaluate.read_page import Page


def sounds(run: RunDir) -> dict[str, np.ndarray]:
    """The first segment of each track of song a, which are all FLAC where a test says so."""
    found = {}
    for path in (run.page.parent / "media" / "a").glob("*/0.js"):
        content = base64.b64decode(json.loads(f"[{path.read_text()[len('mediaLoaded(') : -3]}]")[1])
        if content.startswith(b"fLaC"):
            found[path.parent.name] = soundfile.read(io.BytesIO(content), always_2d=True)[0]
    return found


def whole(run: RunDir, name: str) -> Path:
    folder, of = (name, "stem") if name.startswith("step") else ("references", name)
    return run.evaluations / folder / "audio" / f"a-{of}.flac"


def test_sounds_of_a_song_have_one_gain_and_say_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5, gains={0: -1.4, 1: -1.4, 2: -6.0})
    monkeypatch.setattr(media, "OPUS", "flac")
    words = " ".join(Page(page.write(run, settings).read_text(encoding="utf-8")).words.split())
    assert "All sounds are turned down by 6 dB (multiplied by 0.5012), so that none clips." in words
    assert "0.5 s of the song, from 1:01.500091 (sample 1 356 077 at 22 050 Hz)." in words
    found = sounds(run)
    assert len(found) == 5
    for name, sound in found.items():
        level = flac.factor(-6.0) / float(read_tags(whole(run, name))["GAIN"])
        assert np.abs(sound - level * soundfile.read(whole(run, name))[0]).max() <= 2.0**-15
    for step, gain in ((step_name(5), -1.4), (step_name(10), -6.0)):
        mix = soundfile.read(whole(run, step).with_name("a-mix.flac"))[0] * flac.factor(-6.0 - gain)
        assert np.abs(mix - found[step] - found["input"]).max() < 2.0**-13, "what is played together is the mix"


def test_sounds_of_an_earlier_version_are_played_as_they_are(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5, recorded=False)
    page.write(run, settings)
    for name, sound in sounds(run).items():
        assert np.abs(sound - soundfile.read(whole(run, name))[0]).max() <= 2.0**-15


def test_of_the_best_checkpoint_all_is_there_and_clips_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (media, page):
        monkeypatch.setattr(module, "CLIP", 0.25)
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5)
    shown = Page(page.write(run, settings).read_text(encoding="utf-8"))
    (song,) = json.loads(shown.scripts[1])["songs"]
    assert run.read_best()["step"] == 10 and json.loads(shown.scripts[1])["chosen"] == 0
    assert {name: (track["format"], round(track["seconds"], 3)) for name, track in song["tracks"].items()} == {
        "input": ("flac", 0.5),
        "target": ("flac", 0.5),
        "ceiling": ("opus", 0.25),
        step_name(5): ("opus", 0.25),
        step_name(10): ("flac", 0.5),
    }
    assert "clips of at most 0.25 s as Opus, and the best checkpoint with the input" in " ".join(shown.words.split())
    monkeypatch.setattr(page, "LOSSLESS", 1.4)
    (song,) = json.loads(Page(page.write(run, settings).read_text(encoding="utf-8")).scripts[1])["songs"]
    assert {track["format"] for track in song["tracks"].values()} == {"opus"}, "too much for FLAC"


def test_sounds_are_made_once_and_again_when_their_source_changes(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5)

    def times() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in (run.page.parent / "media").rglob("track.json")}

    def changed() -> set[str]:
        before = times()
        page.write(run, settings)
        return {name for name, time in times().items() if before.get(name) != time}

    page.write(run, settings)
    assert changed() == set()
    whole(run, step_name(5)).touch()  # evaluated again
    assert changed() == {step_name(5)}
    (run.page.parent / "media" / "a" / "target" / "0.js").write_bytes(b"")
    assert changed() == {"target"}
    whole(run, "input").touch()  # every mix is another
    assert changed() == set(times())


def test_sounds_have_a_common_gain_only_where_all_gains_are_known() -> None:
    assert media.common_gain([{"gain_db": -6.0}, {"gain_db": -1.4}], {"gain_db": -1.4}) == -6.0
    assert media.common_gain([{}, {"gain_db": 0.0}], {"gain_db": 0.0, "unrecorded_gain_db": -3.1}) == -3.1
    assert media.common_gain([{}], {"gain_db": 0.0}) is None
    assert media.common_gain([{"gain_db": 0.0}], {}) is None
    assert media.scale(-6.0, -12.0) == pytest.approx(0.501, abs=0.001) and media.scale(None, -6.0) == 1.0

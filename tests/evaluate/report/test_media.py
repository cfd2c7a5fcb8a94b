"""Clips and images of the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import flac
from p2p_dist.evaluate.report import media, page
from p2p_dist.run.rundir import RunDir
from tests.evaluate.finished_run import BEGIN, RATE, make


class Page(HTMLParser):
    """What a page says and what it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self.words = ""
        self.scripts: list[str] = []
        self.open = ""
        self.feed(text)
        self.made: dict[str, Any] = json.loads(self.scripts[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "poster", "srcset")]
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open == "script":
            self.scripts[-1] += data
        elif self.open != "style":
            self.words += data
        if self.open in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def clips(run: RunDir) -> dict[str, Path]:
    return {path.relative_to(run.page.parent / "media").as_posix(): path for path in run.page.parent.rglob("*.flac")}


def test_clips_of_a_song_have_one_gain_and_say_which(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5, gains={0: -1.4, 1: -1.4, 2: -6.0})
    words = " ".join(Page(page.write(run, settings).read_text(encoding="utf-8")).words.split())
    assert "All sounds are turned down by 6 dB (multiplied by 0.5012), so that none clips." in words
    assert "0.5 s of the song, from 1:01.500091 (sample 1 356 077 at 22 050 Hz)." in words
    sounds = {}
    for name, path in clips(run).items():
        whole, own = soundfile.read(_whole(run, name))[0], flac.read_tags(_whole(run, name))
        sounds[name], tags = soundfile.read(path)[0], flac.read_tags(path)
        assert tags["BEGIN_SAMPLE"] == str(BEGIN) == own["BEGIN_SAMPLE"] and tags["GAIN_DB"] == "-6"
        level = flac.factor(-6.0) / float(own["GAIN"])
        assert np.abs(sounds[name] - level * whole).max() <= 2.0**-15
    assert len(sounds) == 8
    heard = sounds["references/a-input.flac"]
    for step in ("step-00000005", "step-00000010"):
        assert np.abs(sounds[f"{step}/a-mix.flac"] - sounds[f"{step}/a-stem.flac"] - heard).max() < 2.0**-13


def _whole(run: RunDir, clip: str) -> Path:
    folder, name = clip.split("/")
    return run.evaluations / folder / "audio" / name


def test_clips_are_short_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "CLIP", 0.25)
    monkeypatch.setattr(page, "CLIP", 0.25)
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    words = page.write(run, settings).read_text(encoding="utf-8")
    assert "the clips hold the first 0.25 s." in words and "16-bit clips of at most 0.25 s." in words
    for name, path in clips(run).items():
        frames = soundfile.info(path).frames
        assert frames == round(0.25 * RATE)
        assert np.abs(soundfile.read(path)[0] - soundfile.read(_whole(run, name), frames)[0]).max() <= 2.0**-15
    first = {path: path.stat().st_ino for path in clips(run).values()}
    page.write(run, settings)
    assert first == {path: path.stat().st_ino for path in clips(run).values()}
    mix, stem, target = (
        clips(run)[name] for name in ("step-00000005/a-mix.flac", "step-00000005/a-stem.flac", "references/a-target.flac")
    )
    _whole(run, "step-00000005/a-mix.flac").touch()  # evaluated anew
    stem.write_bytes(stem.read_bytes()[:20])
    target.unlink()
    page.write(run, settings)
    changed = {path for path in first if path.stat().st_ino != first[path] or path == stem}
    assert {mix, stem} <= changed <= {mix, stem, target} and soundfile.info(stem).frames == soundfile.info(target).frames
    monkeypatch.setattr(media, "CLIP", 0.3)
    page.write(run, settings)
    assert {soundfile.info(path).frames for path in clips(run).values()} == {round(0.3 * RATE)}


def test_clips_have_a_common_gain_only_where_all_gains_are_known() -> None:
    assert media.common_gain([{"gain_db": -6.0}, {"gain_db": -1.4}], {"gain_db": -1.4}) == -6.0
    assert media.common_gain([{}, {"gain_db": 0.0}], {"gain_db": 0.0, "unrecorded_gain_db": -3.1}) == -3.1
    assert media.common_gain([{}], {"gain_db": 0.0}) is None
    assert media.common_gain([{"gain_db": 0.0}], {}) is None


def test_a_clip_has_fifteen_seconds_at_most(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=15.5)
    words = page.write(run, settings).read_text(encoding="utf-8")
    assert "the clips hold the first 15 s." in words
    assert "All sounds are at the original level of the song." in words
    assert {soundfile.info(path).frames for path in clips(run).values()} == {15 * RATE}

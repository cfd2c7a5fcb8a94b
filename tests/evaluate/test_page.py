"""The page of a run: whole without any network, safe against its own names, every figure beside its baselines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import soundfile

from p2p_dist import files, presets
from p2p_dist.config import Config
from p2p_dist.evaluate import metrics, page
from p2p_dist.rundir import RunDir
from tests.evaluate.finished_run import HOSTILE, RATE, make

EXAMPLE = "it proves the way, not the music"


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config]:
    folder = tmp_path_factory.mktemp("machine-name") / "runs" / "drums-demo"
    songs = {"dawn": HOSTILE, "falcon-69": "Falcon 69"}
    run, settings = make(folder, songs, seconds=1.0, root="/home/someone/songs/falcon69")
    page.write(run, settings)
    return run, settings


@pytest.fixture
def shown(finished: tuple[RunDir, Config]) -> Page:
    return Page(finished[0].page.read_text(encoding="utf-8"))


def test_the_folder_can_be_sent_alone(finished: tuple[RunDir, Config], shown: Page, tmp_path: Path) -> None:
    run, _ = finished
    packed = tmp_path / "page.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in run.page.parent.rglob("*"):
            archive.write(path, path.relative_to(run.page.parent))
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "sent")
    changing = [made[name] for songs in shown.made.values() for made in songs.values() for name in ("mix", "stem")]
    sounds = [address for address in shown.addresses if address.endswith(".flac")]
    assert len(sounds) == 2 * 6
    for address in {*sounds, *changing}:
        assert soundfile.info(tmp_path / "sent" / unquote(address)).frames == RATE
    pictures = {made["picture"] for songs in shown.made.values() for made in songs.values()}
    assert len(pictures) == 6
    for address in pictures:
        assert (tmp_path / "sent" / unquote(address)).read_bytes().startswith(b"\x89PNG")


def test_asks_for_nothing_outside_its_folder(finished: tuple[RunDir, Config], shown: Page) -> None:
    text = finished[0].page.read_text(encoding="utf-8")
    assert shown.addresses and all(address.startswith("media/") for address in shown.addresses)
    assert not re.search(r"https?:|url\(|@import|fetch\(|//[a-z]", text)


def test_names_no_place_on_the_machine(finished: tuple[RunDir, Config]) -> None:
    text = finished[0].page.read_text(encoding="utf-8")
    assert "machine-name" not in text and "/home/" not in text and "songs/falcon69" not in text


def test_a_name_stays_a_name(shown: Page) -> None:
    assert HOSTILE in shown.words
    assert shown.tags.count("script") == 3  # the page's own: nothing broke out


def test_addresses_are_percent_encoded(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a b&c#d%41": "x"}, (5,), seconds=0.5)
    shown = Page(page.write(run, settings).read_text(encoding="utf-8"))
    made = shown.made["5"]["a b&c#d%41"]
    assert made["mix"] == "media/step-00000005/a%20b%26c%23d%2541-mix.flac"
    assert (run.page.parent / unquote(made["mix"])).is_file()


def test_every_figure_stands_beside_its_baselines(shown: Page) -> None:
    tables = _tables(shown.rows)
    assert len(tables) == 3
    for rows in tables:
        assert [row[0] for row in rows[1:4]] == ["copy the input", "silence", "ceiling"]
        assert rows[1][-3:] == ["14.61", "6.27", "0.41"]
        assert rows[2][-3:] == ["21.35", "5.52", "0.00"]
        assert rows[3][-3:] == ["2.15", "1.13", "0.96"]
    dawn, falcon, steps = tables
    assert dawn[4][-3:] == ["11.00", "4.00", "–"] and falcon[4][-3:] == ["12.00", "4.00", "0.80"]
    assert [row[0] for row in steps[4:]] == ["30", "60", "90"]
    assert steps[6][-3:] == ["11.50", "4.00", "0.80"]
    assert {len(row) for rows in tables for row in rows[1:4]} == {1 + len(metrics.MEASURES)}
    assert "could not be measured" in shown.titles
    for explanation in metrics.BASELINES.values():
        assert explanation in shown.words
    assert "silence can win the first, density the second" in shown.words


def _tables(rows: list[list[str]]) -> list[list[list[str]]]:
    starts = [place for place, row in enumerate(rows) if row[0] in ("this song", "step")]
    return [rows[begin:end] for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def test_example_is_called_what_it_is(finished: tuple[RunDir, Config], shown: Page, tmp_path: Path) -> None:
    assert EXAMPLE in shown.words
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5, root="/data/musdb18")
    assert EXAMPLE not in page.write(run, settings).read_text(encoding="utf-8")


def test_curves_run_from_first_to_last_checkpoint(finished: tuple[RunDir, Config]) -> None:
    text = finished[0].page.read_text(encoding="utf-8")
    lines = [line.split() for line in re.findall(r'<polyline points="([^"]+)"', text)]
    assert [len(points) for points in lines[:3]] == [3, 3, 3]
    heights = [[float(point.split(",")[1]) for point in points] for points in lines[:3]]
    assert heights[0] == sorted(heights[0]) and heights[0][0] < heights[0][-1]  # L1 falls; y grows downward
    assert heights[2] == sorted(heights[2], reverse=True) and heights[2][0] > heights[2][-1]  # F1 rises


@pytest.mark.parametrize(("top", "most"), [(0.0004, 4), (0.99, 5), (1, 4), (7, 4), (90, 4), (3_000_000, 4), (21.4, 5)])
def test_ticks_are_few_and_reach_far(top: float, most: int) -> None:
    ticks = page._ticks(top, most)
    assert ticks[0] == 0 and 2 <= len(ticks) <= most + 1
    assert top / 2 < ticks[-1] <= top * (1 + 1e-9)


def test_long_training_is_thinned(finished: tuple[RunDir, Config]) -> None:
    rows = [{"step": step, "l1": 0.25, "epoch": 1} for step in range(50, 3_000_001, 50)]
    curve = page._training_curve(rows)
    assert curve is not None and len(curve["points"]) <= page._TRAINING_POINTS
    assert curve["points"][-1][2] == 3_000_000 and curve["points"][0][3] == "0.25"
    assert page._training_curve([]) is None


def test_without_training_numbers_or_any_measure(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    run.metrics.unlink()
    path = run.evaluations / "step-00000005" / "metrics.json"
    content = files.read_json(path)
    nothing = dict.fromkeys(content["mean"]["output"])
    for row in (content["mean"], content["songs"][0]):
        row |= dict.fromkeys(("output", "copy the input", "silence", "ceiling"), nothing)
    files.write_json(path, content)
    text = page.write(run, settings).read_text(encoding="utf-8")
    assert "None" not in text and "nan" not in text and text.count("<polyline") == 0


def test_a_later_page_replaces_an_earlier_one(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5)
    page.write(run, settings)
    (run.evaluations / "step-00000010").rename(tmp_path / "gone")
    shown = Page(page.write(run, settings).read_text(encoding="utf-8"))
    assert list(shown.made) == ["5"]
    kept = {path.name for path in (run.page.parent / "media").rglob("*") if path.is_file()}
    assert kept == {f"a-{name}.flac" for name in ("input", "target", "ceiling", "true-mix", "stem", "mix")} | {"a.png"}
    assert not list((run.page.parent / "media").glob("step-00000010/*"))
    assert (tmp_path / "gone" / "audio" / "a-mix.flac").is_file()  # the evaluation itself is never touched


def test_many_checkpoints_stay_small(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {f"song-{n}": f"Song {n}" for n in range(4)}, (5,), seconds=0.3)
    first = len(page.write(run, settings).read_bytes())
    for step in range(10, 105, 5):
        (run.evaluations / f"step-{step:08d}").symlink_to("step-00000005")
    assert len(page.write(run, settings).read_bytes()) - first < 19 * 4 * 500


def test_other_tasks_are_named(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    settings = presets.from_yaml(run.config)
    files.write_text(run.config, presets.to_yaml(settings).replace("task: drums", "task: vocals+other->drums+bass"))
    words = Page(page.write(run, presets.from_yaml(run.config)).read_text(encoding="utf-8")).words
    assert "vocals+other → drums+bass" in words and "generated drums, bass" in words
    assert "--task 'vocals+other->drums+bass'" in words  # as a shell needs it


def test_says_what_to_do_without_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no evaluation in .*launch/submit.py --run early"):
        page.write(RunDir(tmp_path / "early"), presets.preset("demo"))
    assert not (tmp_path / "early").exists()


def test_imports_no_torch() -> None:
    code = "import sys, p2p_dist.evaluate.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

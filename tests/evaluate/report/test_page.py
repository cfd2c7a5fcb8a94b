"""The page of a run: whole without any network, safe against its own names, every figure beside its baselines."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from p2p_dist.common import files, records
from p2p_dist.data import manifest
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.evaluate.report import curves, page
from p2p_dist.run.rundir import RunDir, step_name
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config
from tests.evaluate.finished_run import HOSTILE, make
from tests.evaluate.read_page import Page

EXAMPLE = "not apply to other songs"


def test_the_folder_can_be_sent_alone(finished: tuple[RunDir, Config], shown: Page, tmp_path: Path) -> None:
    run, _ = finished
    packed = tmp_path / "page.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in run.page.parent.rglob("*"):
            archive.write(path, path.relative_to(run.page.parent))
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "sent")
    songs = json.loads(shown.scripts[1])["songs"]
    names = {"input", "target", "ceiling", *(step_name(step) for step in (30, 60, 90))}
    assert [set(song["tracks"]) for song in songs] == [names, names]
    for song in songs:
        for name, track in song["tracks"].items():
            folder = tmp_path / "sent" / "media" / song["key"] / name
            assert {path.name for path in folder.glob("*.js")} == {"0.js", "overview.js"} and track["segments"] == 1
            assert track["format"] == ("opus" if name in ("ceiling", step_name(30), step_name(60)) else "flac")
            assert track["seconds"] == 1.0


def test_asks_for_nothing_outside_its_folder(finished: tuple[RunDir, Config], shown: Page) -> None:
    text = finished[0].page.read_text(encoding="utf-8")
    assert shown.addresses == ["#"] and not re.search(r"https?:|url\(|@import|fetch\(|//[a-z]", text)


def test_names_no_place_on_the_machine(finished: tuple[RunDir, Config]) -> None:
    text = finished[0].page.read_text(encoding="utf-8")
    assert "machine-name" not in text and "/home/" not in text and "songs/falcon69" not in text


def test_a_name_stays_a_name(shown: Page) -> None:
    assert HOSTILE in shown.words
    assert shown.tags.count("script") == 4  # the page's own: nothing broke out


def test_a_key_that_is_no_plain_name_is_refused(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a b&c#d%41": "x"}, (5,), seconds=0.5)
    with pytest.raises(ValueError, match=r"metrics\.json is damaged: songs\.0\.key"):
        page.write(run, settings)


def test_every_figure_stands_beside_its_baselines(shown: Page) -> None:
    tables = _tables(shown.rows)
    assert len(tables) == 6, "of each song and of all, what decides and what is reported"
    for decide, reported in zip(tables[::2], tables[1::2], strict=True):
        for rows in (decide, reported):
            assert [row[0] for row in rows[1:4]] == ["copy the input", "silence", "ceiling"]
        at = _column(reported, "stem L1 dB")
        assert [row[at] for row in reported[1:4]] == ["14.61", "21.35", "2.15"]
        assert [row[_column(decide, "grid")] for row in decide[1:4]] == ["0.31", "0.00", "0.98"]
        assert len({len(row) for row in decide[1:5]}) == len({len(row) for row in reported[1:5]}) == 1
    dawn, falcon, steps = tables[1::2]
    at = _column(dawn, "onset F1")
    assert dawn[4][at] == "–" and falcon[4][at] == "0.80"
    assert [row[_column(dawn, "stem L1 dB")] for row in (dawn[4], falcon[4])] == ["11.00", "12.00"]
    assert [row[0] for row in steps[4:]] == ["30", "60", "90"] and steps[6][_column(steps, "onset F1")] == "0.80"
    assert {"the true stem has no onset", "the stem is silent", "it needs 8 windows"} <= set(shown.titles)
    for rows in tables[:4]:
        assert all(any(row[at] != "–" for row in rows[1:]) for at in range(1, len(rows[0]))), "no column without a number"
    assert any(cell.startswith("distance") for cell in tables[4][0])
    assert not any(cell.startswith("distance") for rows in tables[:4] for cell in rows[0]), "it is of songs together"
    assert "F1 23 ms, F1 46 ms, envelope, sharpness, density: not measured by the version that evaluated this" in shown.words
    for name in ("copy the input", "silence", "ceiling"):
        assert BASELINES[name] in shown.words
    assert "same song, far away: the song is shorter than 40 s" in shown.words
    assert "silence can have the best mix L1" in shown.words


def test_intervals_and_the_best_checkpoint_are_shown(shown: Page) -> None:
    decide = _tables(shown.rows)[4]
    at, scores = _column(decide, "level dB"), [float(row[1]) for row in decide[4:7]]
    assert [row[at] for row in decide[4:7]] == ["9.00", "6.00", "3.00"]
    assert all(text in shown.words for text in ("8.00 to 11.00", "5.00 to 8.00", "2.00 to 5.00"))
    assert "Best checkpoint: step 90" in shown.words and "chosen on the songs that are reported" in shown.words
    assert decide[6][0] == "90" and "the best" in shown.words
    assert scores == sorted(scores) and len(set(scores)) == 3, "the score rises"


def test_the_distance_says_what_it_compares_and_when_it_does_not_count(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A", "b": "B"}, (5,), seconds=0.5)
    at = run.evaluations / "step-00000005" / "metrics.json", run.evaluations / "baselines.json"
    for path in at:
        content = records.read(path)
        split = content["splits"]["test"]
        for row in split["rows"].values() if "rows" in split else [split]:
            row["mean"]["mmd"] = 35.0
        files.write_json(path, content)
    for windows, shown, counts in ((250, "35.00", True), (50, "≈ 35.00", False)):
        content = records.read(at[1])
        content["splits"]["test"]["distance"] = {"songs": 2, "windows": windows, "real": 260, "others": 38.5}
        files.write_json(at[1], content)
        found = Page(page.write(run, settings).read_text(encoding="utf-8"))
        steps = _tables(found.rows)[4]
        assert {row[_column(steps, "distance")] for row in steps[1:5]} == {shown}
        card = (run.path / "MODEL.md").read_text(encoding="utf-8")
        for text in (found.words, card):
            assert (
                f"compares {windows} windows of the stems with the 260 windows of the whole true stems of the same 2 songs"
                in text
            )
            assert "the true stems of one half of these songs are at 38.50 from those of the other half." in text
            assert ("does not count in the score" in text) is not counts
        assert f" {shown} |" in card


def test_it_says_which_generation_is_heard_and_measured(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A", "b": "B"}, (5, 10), seconds=0.5)
    for seeds in (1, 2):
        settings = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seeds=seeds))
        words = Page(page.write(run, settings).read_text(encoding="utf-8")).words
        assert "of the generation that is played" in words and "An earlier version evaluated" not in words
        assert "Means over 2 songs (median for level dB); below each its 95 % confidence" in words
        for text in (words, (run.path / "MODEL.md").read_text(encoding="utf-8")):
            assert ("checkpoint, 2 generations of each song are averaged" in text) == (seeds == 2)
    path = run.evaluations / "step-00000005" / "metrics.json"
    files.write_json(path, records.read(path) | {"schema": 2})
    words = Page(page.write(run, settings).read_text(encoding="utf-8")).words
    assert "An earlier version evaluated step 5: there the figures of a song are means over 2 generations" in words


def test_a_pitched_target_is_shown_with_its_pitch(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    for task, pitched in (("drums", False), ("vocals", True)):
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, task=task))
        rows = Page(page.write(run, settings).read_text(encoding="utf-8")).rows
        assert any(cell.startswith("pitch") for row in rows for cell in row) == pitched


def _column(rows: list[list[str]], label: str) -> int:
    return next(at for at, cell in enumerate(rows[0]) if cell.split("\xa0")[0] == label)


def _tables(rows: list[list[str]]) -> list[list[list[str]]]:
    starts = [place for place, row in enumerate(rows) if row[0] in ("this song", "step")]
    return [rows[begin:end] for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def test_example_is_called_what_it_is(finished: tuple[RunDir, Config], shown: Page, tmp_path: Path) -> None:
    assert EXAMPLE in shown.words
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5, root="/data/musdb18")
    assert EXAMPLE not in page.write(run, settings).read_text(encoding="utf-8")


def test_curves_run_from_first_to_last_checkpoint(finished: tuple[RunDir, Config]) -> None:
    text = finished[0].page.read_text(encoding="utf-8")
    found = dict(
        re.findall(r'aria-label="([^"]+), over step">.*?<polyline class="marked"[^>]* points="([^"]+)"', text, re.DOTALL)
    )
    points = {name: [tuple(map(float, p.split(","))) for p in line.split()] for name, line in found.items()}
    assert all(len(points[name]) == 3 for name in points if "training" not in name)
    level, grid = ([y for _, y in points[name]] for name in ("level dB, lower is better", "grid, 1 is best"))
    assert level == sorted(level) and level[0] < level[-1]  # it falls; y grows downward
    assert grid == sorted(grid, reverse=True) and grid[0] > grid[-1]
    assert "score, higher is better" in points
    assert "generated, step 30: 9 (8 to 11)" in text, "the interval"
    legend = re.findall(r"<li><svg[^\n]*</svg>([^<]+)</li>", text)
    assert legend == ["generated", "copy the input", "silence", "ceiling"]


def test_long_training_is_thinned() -> None:
    rows = [{"step": step, "l1": 0.25, "epoch": 1} for step in range(50, 3_000_001, 50)]
    plot = curves.of_training(rows)
    (points,) = re.findall(r' points="([^"]+)"', plot)
    heights = {point.split(",")[1] for point in points.split()}
    assert len(points.split()) == 300 and len(heights) == 1 and "3\u202f000\u202f000" in plot
    assert curves.of_training([]) == ""


def test_without_training_numbers_or_any_measure(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    run.metrics.write_text('{"step": 3, "l1": null}\n')
    for path in (run.evaluations / "step-00000005" / "metrics.json", run.evaluations / "baselines.json"):
        files.write_json(path, _emptied(records.read(path)))
    text = page.write(run, settings).read_text(encoding="utf-8")
    assert "None" not in text and "nan" not in text and text.count("<polyline") == 0


def _emptied(value: Any) -> Any:
    """All figures gone."""
    if isinstance(value, dict):
        return {key: [] if key == "begins" else _emptied(part) for key, part in value.items() if key not in MEASURES} | {
            key: value[key] for key in ("begins", "seconds", "step", "songs") if isinstance(value.get(key), int | float)
        }
    return [_emptied(part) for part in value] if isinstance(value, list) else value


def test_an_evaluation_of_an_earlier_version_is_shown_and_nothing_false_said(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A", "b": "B"}, (5,), seconds=0.5, recorded=False)
    words = " ".join(Page(page.write(run, settings).read_text(encoding="utf-8")).words.split())
    assert words.count("All sounds are scaled by one factor, which") == 2 and "original level" not in words
    assert "1:01.500091 (sample 1 356 077 at 22 050 Hz)" in words
    assert "confidence interval" not in words and "8.00 to" not in words
    assert "No interval, because an earlier version evaluated them: step 5." in words
    card = (run.path / "MODEL.md").read_text(encoding="utf-8")
    assert "[" not in card.split("## How it measures")[1].split("## What")[0].replace("in brackets", "")


@pytest.mark.parametrize("name", ["gain_db", "begins"])
def test_a_gain_or_place_that_can_not_be_is_damage(tmp_path: Path, name: str) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    for path in (run.evaluations / "baselines.json", run.evaluations / "step-00000005" / "metrics.json"):
        before = path.read_text()
        for value in ("1e300", "-1e300", "3"):
            if (name, value) != ("begins", "3"):
                path.write_text(re.sub(rf'"{name}": [-0-9.]+', f'"{name}": {value}', before))
                with pytest.raises(files.DamagedError, match=rf"{path.name} is damaged.*evaluate again"):
                    page.write(run, settings)
        path.write_text(before)


def test_a_distance_below_zero_is_explained_where_it_is_shown(
    tmp_path: Path, finished: tuple[RunDir, Config], shown: Page
) -> None:
    assert MEASURES["mmd"].below_zero not in shown.words
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    path = run.evaluations / "step-00000005" / "metrics.json"
    content = records.read(path)
    content["splits"]["test"]["mean"]["mmd"] = -3.25
    files.write_json(path, content)
    text = page.write(run, settings).read_text(encoding="utf-8")
    assert MEASURES["mmd"].below_zero in text and "-3.25" in text
    assert MEASURES["mmd"].below_zero in (run.path / "MODEL.md").read_text(encoding="utf-8")
    assert MEASURES["mmd"].below_zero not in (finished[0].path / "MODEL.md").read_text(encoding="utf-8")


def test_a_later_page_replaces_an_earlier_one(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5)
    files.write_text(run.page.parent / "media" / "references" / "a-input.flac", "")
    page.write(run, settings)
    (run.evaluations / "step-00000010").rename(tmp_path / "gone")
    shown = Page(page.write(run, settings).read_text(encoding="utf-8"))
    assert list(shown.made) == [step_name(5)]
    assert {path.name for path in (run.page.parent / "media" / "a").iterdir()} == {"input", "target", "ceiling", step_name(5)}
    assert {path.name for path in (run.page.parent / "media").iterdir()} == {"a"}, "what version 0.1 wrote is gone"
    assert (tmp_path / "gone" / "audio" / "a-mix.flac").is_file()  # the evaluation itself is never touched


def test_many_checkpoints_stay_small(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {f"song-{n}": f"Song {n}" for n in range(4)}, (5,), seconds=0.3)
    first = len(page.write(run, settings).read_bytes())
    for step in range(10, 105, 5):
        shutil.copytree(run.evaluations / "step-00000005", run.evaluations / f"step-{step:08d}")
    assert len(page.write(run, settings).read_bytes()) - first < 19 * 4 * 700


def test_other_tasks_are_named(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    settings = presets.from_yaml(run.config)
    files.write_text(run.config, presets.to_yaml(settings).replace("task: drums", "task: vocals+other->drums+bass"))
    words = Page(page.write(run, presets.from_yaml(run.config)).read_text(encoding="utf-8")).words
    assert "vocals+other → drums+bass" in words and "generates drums, bass" in words
    assert "--task 'vocals+other->drums+bass'" in words  # as a shell needs it


def test_says_what_to_do_without_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no evaluation in .*launch/submit.py --run early"):
        page.write(RunDir(tmp_path / "early"), presets.preset("demo"))
    assert not (tmp_path / "early").exists()


@pytest.mark.parametrize(
    "begun, submit", [("/venv/bin/p2p-dist", "p2p-dist submit"), ("launch/submit.py", "python launch/submit.py")]
)
def test_next_steps_are_commands_as_the_run_was_begun(tmp_path: Path, begun: str, submit: str) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.3)
    files.write_json(run.provenance, {"command": [begun, "submit"]})
    words = Page(page.write(run, settings).read_text(encoding="utf-8")).words
    assert f"{submit} --run run" in words and f"{submit} --data FOLDER --task drums" in words
    assert words.count("p2p-dist submit") + words.count("launch/submit.py") == 2


def test_imports_no_torch() -> None:
    code = "import sys, p2p_dist.evaluate.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("allowed", [False, True])
def test_a_held_out_song_that_was_trained_on_is_named_on_page_and_card(tmp_path: Path, allowed: bool) -> None:
    run, settings = make(tmp_path / "runs" / "run", {"dawn": "Dawn"}, (5,), seconds=0.5)
    content = records.read(run.shards / manifest.NAME)
    content["splits"]["test"] = dict(content["splits"]["train"])
    content["splits"]["test"]["songs"] = [{"name": "<b>Again", "key": "again", "seconds": 4.0, "same_as": ["Song & Co"]}]
    files.write_json(run.shards / manifest.NAME, files.sealed({k: v for k, v in content.items() if k != "seal"}))
    settings = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, allow_overlap=allowed))
    page.write(run, settings)
    line = "<b>Again (test) has the audio of Song & Co (train)"
    shown, card = Page(run.page.read_text()), (run.path / "MODEL.md").read_text()
    assert line in shown.words and line in html.unescape(card)
    assert ("not apply to other songs" in shown.words) is allowed and ("left out of the figures" in shown.words) is not allowed
    assert ("not apply to other songs" in card) is allowed

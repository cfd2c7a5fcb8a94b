"""The table of measures: one entry is all that a measure needs, and runs evaluated before it are still shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from p2p_dist.cli import evaluate as command
from p2p_dist.common import files, records
from p2p_dist.evaluate import checkpoints, ranking
from p2p_dist.evaluate.measures import descriptors, table
from p2p_dist.evaluate.measures.kinds import AMOUNT, REPORTED, Measure, OfStem, OfWindows, Score
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.evaluate.report import page
from p2p_dist.jobs import status
from p2p_dist.run import rundir
from p2p_dist.settings.config import Evaluate

GOLDEN = Path(__file__).parents[2] / "golden"
MISSING = "not measured by the version that evaluated this"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rundir.RunDir:
    """A run that commit e9c9568 evaluated at step 4."""
    shutil.copytree(GOLDEN / "run-v1", tmp_path / "runs" / "run-v1")
    shutil.copytree(GOLDEN / "shards-v1", tmp_path / "shards" / "shards-v1")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    return rundir.find("run-v1")


def test_a_new_measure_is_one_entry_and_old_evaluations_lack_it(
    old: rundir.RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is measured, scored, ranked, drawn and shown from now on; where it was not measured, a dash says so."""
    settings = rundir.read_settings(old)
    evaluated = old.evaluations / rundir.step_name(4)
    before = ranking.conclude(old, settings)
    loudest = Measure(
        "loudest",
        "high",
        AMOUNT,
        "the largest sample",
        OfStem(lambda stem, _: float(abs(stem.signal).max())),
        (0.0, 1.0),
        Score(lambda value: min(value, 1.0)),
        headline=True,
    )
    flat = Measure("flat", "low", REPORTED, "a quantity of windows", OfWindows({"flat": lambda *_: 1.0}, lambda _: 1.0))
    monkeypatch.setitem(MEASURES, "loudest", loudest)
    monkeypatch.setitem(MEASURES, "flat", flat)

    assert command.main([old.path.name, "--checkpoints", "4"]) == 0
    shown = capsys.readouterr().out
    assert "loudest" in shown and MISSING in shown
    again = ranking.conclude(old, settings)
    assert before is not None and again is not None
    assert [c["score"] for c in again["checkpoints"]] == [c["score"] for c in before["checkpoints"]], "no ceiling has it"
    assert "loudest" in again["rule"] and status.gather(old)["step"] == 8
    assert MISSING in page.write(old, settings).read_text()

    assert checkpoints.evaluate(old, settings, only=[8]) == 1
    anew = records.read(old.evaluations / rundir.step_name(8) / "metrics.json")["songs"][0]
    assert 0 < anew["output"]["loudest"] <= 1 and anew["output"]["flat"] == 1
    text = page.write(old, settings).read_text()
    assert "loudest, higher is better, over step" in text and "the largest sample" in text, "its curve, and what it means"
    assert "loudest" not in (evaluated / "metrics.json").read_text()


def test_a_measure_of_another_version_is_called_by_its_name(old: rundir.RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    path = old.evaluations / rundir.step_name(4) / "metrics.json"
    content = records.read(path)
    content["splits"]["test"]["absent"]["later"] = "the stem is silent"
    files.write_json(path, content)
    assert command.main([old.path.name, "--checkpoints", "4"]) == 0
    assert "absent: later: the stem is silent" in capsys.readouterr().out
    page.write(old, rundir.read_settings(old))


def test_the_rule_names_every_measure_that_scores() -> None:
    rule = ranking.rule(Evaluate())
    for measure in MEASURES.values():
        assert measure.score is None or measure.label in rule
    assert "pitch where the stem has one" in rule
    assert not any(measure.score for measure in MEASURES.values() if not measure.decides)


@pytest.mark.parametrize(
    ("name", "value", "score"),
    [
        ("lock8", 2.0, 0.5),
        ("lock8", 0.5, 0.5),
        ("lock8", -1.0, 0.0),
        ("lock8", 0.0, 0.0),
        ("ec1", -0.5, 0.0),
        ("ec1", 0.25, 0.25),
        ("mmd", 40.0, 0.5),
        ("mmd", 10.0, 0.8),
        ("mmd", -3.0, 1.0),
        ("level_error", 20.0, 0.1),
        ("level_error", 6.0, 0.5011872336272722),
    ],
)
def test_how_values_count(name: str, value: float, score: float) -> None:
    known = MEASURES[name].score
    assert known is not None and known.of(value) == pytest.approx(score)


def test_what_is_said_of_a_value_below_zero() -> None:
    about = {"songs": 7, "windows": 223, "real": 225, "others": 38.2}
    compared = descriptors.in_words(about)
    assert table.remarks([{"mmd": 0.0}, {"mmd": None, "lock8": -1.0}], about) == [compared]
    assert table.remarks([{"mmd": -0.1}], about) == [compared, MEASURES["mmd"].below_zero]
    assert table.remarks([{"mmd": None}, {"lock8": 1.0}], about) == [], "there is no distance"


def test_each_table_has_its_measures() -> None:
    decide, reported = table.columns(pitched=False)
    assert "chroma_correlation" not in decide and "chroma_correlation" in table.columns(pitched=True)[0]
    assert decide[0] == "lock8" and set(reported) == {n for n, m in MEASURES.items() if m.family == REPORTED}


def test_the_grid_of_a_stem_without_onsets_is_zero_and_a_true_stem_off_the_grid_has_none() -> None:
    lock = MEASURES["lock8"].computed
    assert isinstance(lock, OfWindows)
    assert lock.combine([{"grid": None, "true_grid": 2.0}]) == 0
    assert lock.combine([{"grid": 2.0, "true_grid": 1.04}]) is None, "it would be 25"
    assert lock.combine([{"grid": 2.0, "true_grid": 1.5}]) == 2


def test_the_document_explains_the_measures_of_the_three_families():
    lines = (Path(__file__).parents[3] / ".github" / "EVALUATION.md").read_text(encoding="utf-8").splitlines()
    best = {"one": "1", "high": "high", "low": "low"}
    deciding = {name: measure for name, measure in MEASURES.items() if measure.decides}
    told = [f"| {one.label} | `{name}` | {one.meaning} | {best[one.best]} |" for name, one in deciding.items()]
    assert [line for line in lines if line.startswith("| ") and "`" in line] == told

"""The choice of a checkpoint: by a stated rule, on validation songs, of those that are there."""

from __future__ import annotations

import dataclasses
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from p2p_dist.common import files, records
from p2p_dist.evaluate import ranking
from p2p_dist.evaluate.measures.kinds import AMOUNT, REAL, TIME
from p2p_dist.run import rundir
from p2p_dist.settings.config import Evaluate
from tests.evaluate.finished_run import make

PERFECT = {"lock8": 1.0, "f1t_beyond_chance": 1.0, "ec1": 1.0, "mmd": 0.0, "level_error": 0.0, "flux_ratio": 1.0}
PERFECT |= {"density_ratio": 1.0, "chroma_correlation": 1.0}
SILENT = {"lock8": 0.0, "f1t_beyond_chance": 0.0, "ec1": None, "mmd": None, "level_error": None, "flux_ratio": 0.0}
SILENT |= {"density_ratio": 0.0, "chroma_correlation": None}


def score(
    row: dict[str, Any], ceiling: dict[str, Any] = PERFECT, *, pitched: bool = False, distance: bool = True, **weights: float
) -> float | None:
    return ranking.score(ranking.families(row, ceiling, pitched=pitched, distance=distance), Evaluate(**weights))


def test_perfection_is_one_and_silence_nothing() -> None:
    assert score(PERFECT) == pytest.approx(1) and score(SILENT) == 0


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        ("lock8", 1.0, 0.4),
        ("lock8", 1.0, 1.6),
        ("lock8", 0.4, -0.2),
        ("f1t_beyond_chance", 0.5, 0.2),
        ("ec1", 0.5, 0.2),
        ("mmd", 5.0, 40.0),
        ("mmd", 40.0, 200.0),
        ("level_error", 3.0, 20.0),
        ("flux_ratio", 1.1, 2.0),
        ("flux_ratio", 0.8, 0.3),
        ("density_ratio", 1.2, 3.0),
        ("density_ratio", 0.8, None),
    ],
)
def test_every_measure_of_the_families_moves_the_score(name: str, better: float, worse: float | None) -> None:
    scores = [score(PERFECT | {name: value}) for value in (better, worse)]
    assert scores[0] is not None and scores[1] is not None and scores[0] > scores[1]


def test_measures_that_are_only_reported_do_not() -> None:
    assert score(PERFECT | {"mix_l1": 99.0, "onset_f1": 0.0, "stem_l1": 99.0}) == score(PERFECT)


def test_pitch_counts_where_the_stem_has_one() -> None:
    off = PERFECT | {"chroma_correlation": 0.0}
    assert score(off) == pytest.approx(1) and score(off, pitched=True) == pytest.approx(1 - 1 / 3 / 4)


def test_what_no_stem_can_be_measured_by_is_left_out_and_not_a_zero() -> None:
    unknown = PERFECT | {"mmd": None, "lock8": None}
    found = ranking.families(unknown, unknown, pitched=False)
    assert set(found) == {TIME, AMOUNT} and score(unknown, unknown) == pytest.approx(1)
    assert REAL in ranking.families(unknown, PERFECT, pitched=False), "the true stem has one, this one failed"
    nothing = dict.fromkeys(PERFECT)
    assert score(nothing, nothing) is None


def test_an_uncertain_distance_decides_nothing() -> None:
    found = ranking.families(PERFECT | {"mmd": 400.0}, PERFECT, pitched=False, distance=False)
    assert found == {TIME: pytest.approx(1), AMOUNT: pytest.approx(1)}
    assert "a distance of fewer than 200 windows" in ranking.rule(Evaluate())


def test_weights_are_stated_and_decide() -> None:
    timed, sounding = PERFECT | {"mmd": 400.0}, PERFECT | {"lock8": 0.0, "f1t_beyond_chance": 0.0, "ec1": 0.0}
    assert score(timed, real_weight=0) > score(sounding, real_weight=0)
    assert score(timed, time_weight=0) < score(sounding, time_weight=0)
    assert "(2 x time + 1 x real + 0.5 x amount) / 3.5" in ranking.rule(Evaluate(time_weight=2, amount_weight=0.5))
    with pytest.raises(ValueError, match="must not all be 0"):
        Evaluate(time_weight=0, real_weight=0, amount_weight=0)
    with pytest.raises(ValueError, match=r"evaluate\.real-weight must be from 0 to 1e9"):
        Evaluate(real_weight=float("nan"))


@pytest.mark.parametrize(("distance", "real"), [(-15.0, 1.0), (0.0, 1.0), (40.0, 1 / 2), (120.0, 1 / 4), (360.0, 1 / 10)])
def test_a_sound_font_has_half_of_the_score_of_the_real_thing(distance: float, real: float) -> None:
    found = ranking.families(PERFECT | {"mmd": distance}, PERFECT, pitched=False)
    assert found[REAL] == pytest.approx(real)
    assert "real: 40 / (40 + distance)" in ranking.rule(Evaluate())


# Better, worse: nobody would say otherwise.
ORDER = (
    ("loop on the bar", "silence"),
    ("same drums roughly aligned", "silence"),
    ("true drums 10 dB too quiet", "silence"),
    ("loop on the bar", "same drums anywhere"),
    ("one beat late", "70 ms late"),
    ("one beat late", "a quarter beat late"),
    ("loop on the bar", "a random other song"),
    ("same drums anywhere", "steady noise"),
    ("other song's drums in time", "noise hits"),
    ("loop on the bar", "blurred truth"),
    ("true drums 6 dB loud", "loop on the bar"),
)


def broken(*, distance: bool = True, **weights: float) -> list[tuple[str, str]]:
    """Orders that the rule breaks, by what tests/benchmarks/evaluate.py measured on five real songs."""
    cases = records.read(Path(__file__).parent / "known_cases.json")
    scores = {name: score(row, cases["true drums"], distance=distance, **weights) or 0.0 for name, row in cases.items()}
    return [(better, worse) for better, worse in ORDER if scores[better] <= scores[worse]]


def test_the_rule_orders_known_cases_rightly_and_no_family_alone_does() -> None:
    assert broken() == [] and broken(distance=False) == []
    assert broken(real_weight=0, amount_weight=0)
    assert ("loop on the bar", "a random other song") in broken(time_weight=0, amount_weight=0)
    assert ("loop on the bar", "same drums anywhere") in broken(time_weight=0, real_weight=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    place = tmp_path_factory.mktemp("made")
    return place, make(place / "runs" / "run", {"a": "A", "b": "B"}, (5, 10, 15), seconds=0.3)[1]


@pytest.fixture
def run(made: tuple[Path, Any], tmp_path: Path) -> tuple[rundir.RunDir, Any]:
    shutil.copytree(made[0], tmp_path / "place")
    return rundir.RunDir(tmp_path / "place" / "runs" / "run"), made[1]


def add_validation(run: rundir.RunDir, levels: dict[int, float]) -> None:
    """Validation songs on which the checkpoints have these level errors."""
    path = run.evaluations / "baselines.json"
    content = records.read(path)
    content["splits"]["valid"] = {**content["splits"]["test"], "songs": 3}
    files.write_json(path, content)
    for step, level in levels.items():
        path = run.evaluations / rundir.step_name(step) / "metrics.json"
        content = records.read(path)
        mean = {**content["splits"]["test"]["mean"], "level_error": level, "lock8": 0.5}
        content["splits"]["valid"] = {"mean": mean, "interval": {}, "absent": {}, "songs": []}
        files.write_json(path, content)


def test_chosen_on_validation_songs_and_reported_on_test_songs(run: tuple[rundir.RunDir, Any]) -> None:
    folder, settings = run
    ranked = ranking.conclude(folder, settings)
    assert ranked is not None and ranked["chosen_on"] == "test" and "there are no validation songs" in ranked["note"]
    assert records.read(folder.best)["step"] == 15
    add_validation(folder, {5: 2.0, 10: 1.0, 15: 9.0})
    ranked = ranking.conclude(folder, settings)
    assert ranked is not None and ranked["note"] == "" and ranked["reported_on"] == "test"
    assert [item["step"] for item in ranked["checkpoints"]] == [10, 5, 15]
    best = records.read(folder.best)
    assert best["step"] == 10 and best["rule"] == ranking.rule(settings.evaluate) and best["chosen_on"] == "valid"
    reported = records.read(folder.evaluations / "step-00000010" / "metrics.json")["splits"]["test"]
    assert best["values"]["level_error"] == reported["mean"]["level_error"], "not that of the songs that chose"
    assert best["interval"]["level_error"] == reported["interval"]["level_error"]
    first, ceiling = ranked["checkpoints"][0], ranked["baselines"][0]
    assert (first["values"], first["interval"]) == (best["values"], best["interval"])
    assert (ceiling["values"]["level_error"], ceiling["interval"]) == (0.2, {})
    assert "chroma_correlation" not in best["values"]
    assert rundir.in_words(folder.read_best()) == f"step 10, score {best['score']:.3f} on valid songs"
    assert [item["name"] for item in ranked["baselines"]] == ["ceiling", "copy the input", "silence"]


def give_distances(folder: rundir.RunDir, windows: int, distances: dict[int, float]) -> None:
    """Distances of the checkpoints from so many windows; the ceiling has 0."""
    path = folder.evaluations / "baselines.json"
    content = records.read(path)
    content["splits"]["test"]["rows"]["ceiling"]["mean"]["mmd"] = 0.0
    content["splits"]["test"]["distance"] = {"songs": 2, "windows": windows, "real": 300, "floor": -1.5}
    files.write_json(path, content)
    for step, distance in distances.items():
        path = folder.evaluations / rundir.step_name(step) / "metrics.json"
        content = records.read(path)
        content["splits"]["test"]["mean"]["mmd"] = distance
        files.write_json(path, content)


def test_a_distance_of_few_windows_or_of_an_earlier_version_does_not_choose(run: tuple[rundir.RunDir, Any]) -> None:
    folder, settings = run
    weights = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, real_weight=50.0))
    for windows, best in ((200, 5), (199, 15)):
        give_distances(folder, windows, {5: 0.0, 10: 200.0, 15: 400.0})
        ranked = ranking.conclude(folder, weights)
        assert ranked is not None and ranked["checkpoints"][0]["step"] == best
        assert all((REAL in item["families"]) == (windows == 200) for item in (*ranked["checkpoints"], ranked["baselines"][0]))
    give_distances(folder, 200, {})
    path = folder.evaluations / rundir.step_name(10) / "metrics.json"
    files.write_json(path, records.read(path) | {"schema": 2})
    read = ranking.read_evaluations(folder.evaluations)
    assert read is not None and read[1]["splits"]["test"]["distance"] is None
    ranked = ranking.conclude(folder, weights)
    assert ranked is not None and REAL not in ranked["checkpoints"][0]["families"], "they would not be comparable"


def test_level_errors_of_an_earlier_version_become_medians(run: tuple[rundir.RunDir, Any]) -> None:
    folder, _ = run
    path = folder.evaluations / rundir.step_name(5) / "metrics.json"
    old = records.read(path)
    old["songs"][0]["output"]["level_error"], old["songs"][1]["output"]["level_error"] = 1.0, 4.0
    old["songs"].append({**old["songs"][0], "output": {"level_error": 22.0}})
    old["splits"]["valid"] = {
        **old["splits"]["test"],
        "songs": [{"output": {"level_error": 7.0}}, {"output": {"level_error": None}}],
    }
    for schema, levels in ((2, (4.0, 7.0)), (3, (old["splits"]["test"]["mean"]["level_error"],) * 2)):
        files.write_json(path, old | {"schema": schema})
        read = ranking.read_evaluations(folder.evaluations)
        assert read is not None
        splits = read[0][5]["splits"]
        assert tuple(splits[split]["mean"]["level_error"] for split in ("test", "valid")) == levels
        assert ("level_error" in splits["test"]["interval"]) == (schema == 3)
        assert splits["test"]["mean"]["stem_l1"] == old["splits"]["test"]["mean"]["stem_l1"]
    path = folder.evaluations / "baselines.json"
    baselines = records.read(path)
    for song, level in zip(baselines["songs"].values(), (3.0, 11.0), strict=True):
        song["rows"]["ceiling"] = {**song["rows"]["ceiling"], "level_error": level}
    baselines["songs"]["c"] = {**song, "split": "valid", "rows": {"ceiling": {"level_error": 99.0}}}
    files.write_json(path, baselines | {"schema": 2})
    read = ranking.read_evaluations(folder.evaluations)
    assert read is not None
    rows = read[1]["splits"]["test"]["rows"]
    assert (rows["ceiling"]["mean"]["level_error"], rows["copy the input"]["mean"]["level_error"]) == (7.0, 6.0)


def test_a_checkpoint_that_is_gone_is_not_chosen(run: tuple[rundir.RunDir, Any]) -> None:
    folder, settings = run
    (folder.checkpoints / "step-00000015" / "generator.safetensors").unlink()
    ranked = ranking.conclude(folder, settings)
    assert ranked is not None and ranked["checkpoints"][0]["step"] == 15
    assert records.read(folder.best)["step"] == 10
    for step in (5, 10):
        (folder.checkpoints / rundir.step_name(step) / "generator.safetensors").unlink()
    ranking.conclude(folder, settings)
    assert not folder.best.exists()


def test_whoever_concludes_last_has_seen_all(run: tuple[rundir.RunDir, Any]) -> None:
    """Several processes evaluate; the ranking is made of what lies there, not of what one of them did."""
    folder, settings = run
    late = folder.evaluations / "step-00000015"
    late.rename(folder.path / "late")
    ranking.conclude(folder, settings)
    assert records.read(folder.best)["step"] == 10
    (folder.path / "late").rename(late)
    ranking.conclude(folder, settings)
    assert records.read(folder.best)["step"] == 15
    curves = (folder.evaluations / "curves.svg").read_text(encoding="utf-8")
    assert "step 15:" in curves, "though its figures were written before the last curves, and became visible after"
    first = folder.best.read_bytes()
    ranking.conclude(folder, settings)
    assert folder.best.read_bytes() == first
    assert not list(folder.checkpoints.glob(f"{files.TEMPORARY}*"))


@pytest.mark.parametrize("written", ["ranking.json", "best.json"])
def test_an_evaluation_that_comes_while_another_process_ranks_is_ranked_too(
    run: tuple[rundir.RunDir, Any], monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """Else a process that read before the other one wrote would write after it, and its ranking would stay."""
    folder, settings = run
    late = folder.evaluations / "step-00000015"
    late.rename(folder.path / "late")
    write = records.write

    def write_late(path: Path, *content: Any) -> None:
        if path.name == written and not late.exists():
            (folder.path / "late").rename(late)
        write(path, *content)

    monkeypatch.setattr(records, "write", write_late)
    ranked = ranking.conclude(folder, settings)
    assert ranked is not None and ranked["checkpoints"][0]["step"] == 15
    assert records.read(folder.evaluations / "ranking.json")["checkpoints"] == ranked["checkpoints"]
    assert records.read(folder.best)["step"] == 15


def test_an_evaluation_without_figures_is_passed_over(run: tuple[rundir.RunDir, Any]) -> None:
    """The message about a damaged file says: remove it and evaluate again."""
    folder, settings = run
    ranking.conclude(folder, settings)
    (folder.evaluations / "step-00000010" / "metrics.json").unlink()
    ranked = ranking.conclude(folder, settings)
    assert ranked is not None and [item["step"] for item in ranked["checkpoints"]] == [15, 5]
    assert "step 10:" not in (folder.evaluations / "curves.svg").read_text(encoding="utf-8")


def test_where_the_validation_songs_are_reported_nobody_says_that_there_are_none(run: tuple[rundir.RunDir, Any]) -> None:
    folder, settings = run
    add_validation(folder, {5: 2.0, 10: 1.0, 15: 9.0})
    reported = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, split="valid"))
    ranked = ranking.conclude(folder, reported)
    assert ranked is not None and (ranked["chosen_on"], ranked["reported_on"]) == ("valid", "valid")
    assert ranked["note"] == "the songs that are reported are the validation songs, on which the checkpoint was chosen"


def test_evaluations_elsewhere_choose_nothing(run: tuple[rundir.RunDir, Any]) -> None:
    folder, settings = run
    folder.evaluations.rename(folder.path / "elsewhere")
    assert ranking.conclude(folder, settings, folder.path / "elsewhere") is not None
    assert not folder.best.exists() and (folder.path / "elsewhere" / "ranking.json").is_file()
    assert ranking.conclude(folder, settings) is None, "nothing has been evaluated"


def test_curves_are_drawn_with_the_baselines_as_lines(run: tuple[rundir.RunDir, Any]) -> None:
    from p2p_dist.evaluate.report import curves

    folder, settings = run
    ranked = ranking.conclude(folder, settings)
    picture = ElementTree.parse(folder.evaluations / "curves.svg").getroot()
    labels = [plot.get("aria-label") for plot in picture.iter(f"{{{picture.tag[1:].partition('}')[0]}}}svg")]
    assert {"score, higher is better, over step", "level dB, lower is better, over step"} <= {*labels}
    assert not any("mix L1" in (label or "") for label in labels), "what is only reported stands on the page alone"
    read = ranking.read_evaluations(folder.evaluations)
    assert ranked is not None and read is not None
    drawn = {curve.name: curve for curve in curves.collect(*read, ranked, pitched=False)}
    assert list(drawn["lock8"].points) == [5, 10, 15] and set(drawn["lock8"].baselines) == {
        "copy the input",
        "silence",
        "ceiling",
    }
    assert "mmd" not in drawn, "none could be measured"
    assert drawn["level_error"].intervals[15] == (pytest.approx(2), pytest.approx(5))


def test_the_foundation_can_read_the_choice(run: tuple[rundir.RunDir, Any]) -> None:
    folder, settings = run
    assert folder.read_best() is None
    ranking.conclude(folder, dataclasses.replace(settings))
    assert json.loads(folder.best.read_text())["step"] == 15
    line = rundir.in_words(folder.read_best())
    assert line.startswith("step 15, score 0.") and "chosen on the songs" in line

"""Draw the measures over steps, with the baselines as lines: for a file, the page, and TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.common import files, svg
from p2p_dist.common.svg import Line
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures.table import MEASURES, columns

SCORE = "score"
_COLUMNS = 3
_AIM = {"high": "higher is better", "low": "lower is better", "one": "1 is best"}
_DASHES = ("7 4", "2 2.5", "12 3 2 3", "4 2", "1.5 3", "10 2", "3 1 1 1", "6 2 2 2", "")  # for the baselines
_TRAINING_POINTS = 300  # more would not be visible


@dataclass(frozen=True)
class Curve:
    """One measure: values of the checkpoints by step, the interval of each, and the baselines' values."""

    name: str
    title: str
    aim: str
    points: dict[int, float]
    intervals: dict[int, tuple[float, float]]
    baselines: dict[str, float]

    @property
    def decides(self) -> bool:
        """Whether this measure is part of the score."""
        return self.name == SCORE or MEASURES[self.name].decides

    def lines(self) -> list[Line]:
        """The checkpoints' and, from step 0 on, those of the baselines."""
        points = {float(step): value for step, value in self.points.items()}
        intervals = {float(step): edges for step, edges in self.intervals.items()}
        found = [Line("generated", points, intervals, marked=True)]
        for number, (name, dashes) in enumerate(zip(BASELINES, _DASHES, strict=True)):
            if name in self.baselines:
                value = self.baselines[name]
                found.append(Line(name, {0: value, max(self.points): value}, colour=f"b{number}", dashes=dashes))
        return found

    def plot(self) -> str:
        """An <svg> element."""
        return svg.plot(self.title, self.lines(), "step", self.aim)


def collect(evaluated: dict[int, Any], baselines: Any, ranked: dict[str, Any], *, pitched: bool) -> list[Curve]:
    """Return the curves of the score and all measures of the reported songs, without measures that no checkpoint has.

    Args:
        evaluated, baselines, ranked: the contents of metrics.json by step, of baselines.json and ranking.json.
    """
    split = ranked["reported_on"]
    rows = baselines["splits"][split]["rows"]
    scores = {i["step"]: i["reported_score"] for i in ranked["checkpoints"] if i["reported_score"] is not None}
    of_baselines = {i["name"]: i["score"] for i in ranked["baselines"] if i["name"] in BASELINES and i["score"] is not None}
    found = [Curve(SCORE, "score", _AIM["high"], dict(sorted(scores.items())), {}, of_baselines)]
    of = {step: content["splits"][split] for step, content in evaluated.items()}
    for name in (name for names in columns(pitched=pitched) for name in names):
        measure = MEASURES[name]
        points = {step: value for step, one in of.items() if (value := one["mean"].get(name)) is not None}
        intervals = {step: tuple(one["interval"][name]) for step, one in of.items() if name in one["interval"]}
        lines = {base: value for base in BASELINES if (value := rows.get(base, {"mean": {}})["mean"].get(name)) is not None}
        found.append(Curve(name, measure.label, _AIM[measure.best], points, intervals, lines))
    return [curve for curve in found if curve.points]


def legend(curves: list[Curve]) -> list[Line]:
    """Return the legend: each kind of line once."""
    found = {line.colour: line for curve in curves for line in curve.lines()}
    return [found[colour] for colour in svg.COLOURS if colour in found]


def draw(path: Path, curves: list[Curve]) -> None:
    """Draw the curves of the score and its measures into one file. (The page also shows the other measures.)"""
    order = [curve for curve in curves if curve.decides]
    if not order:
        path.unlink(missing_ok=True)
        return
    files.write_text(path, svg.document([curve.plot() for curve in order], legend(order), _COLUMNS))


def of_training(rows: list[dict[str, Any]]) -> str:
    """Return the generator's L1 over all steps, averaged over neighbouring steps; empty before the first line."""
    size = -(-len(rows) // _TRAINING_POINTS)
    parts = [rows[start : start + size] for start in range(0, len(rows), size or 1)]
    points = {float(part[-1]["step"]): sum(row["l1"] for row in part) / len(part) for part in parts}
    line = Line("training", points, marked=True)
    return svg.plot("L1 of the pictures in training", [line], "step", _AIM["low"]) if points else ""


def for_board(curves: list[Curve]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the curves for TensorBoard: folder (one for the checkpoints, one per baseline) -> curve -> (step, value).

    A baseline has two points, at the first and the last checkpoint.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for curve in curves:
        tag = f"evaluation/{curve.name}"
        found.setdefault("generated", {})[tag] = list(curve.points.items())
        for name, value in curve.baselines.items():
            ends = sorted({min(curve.points), max(curve.points)})
            found.setdefault(name.replace(",", "").replace(" ", "-"), {})[tag] = [(step, value) for step in ends]
    return found

"""Plot the measures over epochs, with the baselines as lines: as PNG, and for TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from p2p_dist.common import files
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures.table import MEASURES, columns

SCORE = "score"
_COLUMNS = 3
_AIM = {"high": "higher is better", "low": "lower is better", "one": "1 is best"}
_STYLES = ("--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)), (0, (2, 2)), (0, (4, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Curve:
    """One measure: values of the checkpoints by step, the interval of each, and the baselines' values."""

    name: str
    title: str
    points: dict[int, float]
    intervals: dict[int, tuple[float, float]]
    lines: dict[str, float]

    @property
    def decides(self) -> bool:
        """Whether it is of what ranks checkpoints."""
        return self.name == SCORE or MEASURES[self.name].decides


def collect(evaluated: dict[int, Any], baselines: Any, ranked: dict[str, Any], *, pitched: bool) -> list[Curve]:
    """The score and all measures of the reported songs; those that no checkpoint has are left out.

    Args:
        evaluated, baselines, ranked: the contents of metrics.json by step, of baselines.json and ranking.json.
    """
    split = ranked["reported_on"]
    rows = baselines["splits"][split]["rows"]
    scores = {i["step"]: i["reported_score"] for i in ranked["checkpoints"] if i["reported_score"] is not None}
    found = [
        Curve(
            SCORE,
            "score (higher is better)",
            dict(sorted(scores.items())),
            {},
            {i["name"]: i["score"] for i in ranked["baselines"] if i["name"] in BASELINES and i["score"] is not None},
        )
    ]
    of = {step: content["splits"][split] for step, content in evaluated.items()}
    for name in (name for names in columns(pitched=pitched) for name in names):
        measure = MEASURES[name]
        points = {step: value for step, one in of.items() if (value := one["mean"].get(name)) is not None}
        intervals = {step: tuple(one["interval"][name]) for step, one in of.items() if name in one["interval"]}
        lines = {base: value for base in BASELINES if (value := rows.get(base, {"mean": {}})["mean"].get(name)) is not None}
        found.append(Curve(name, f"{measure.label} ({_AIM[measure.best]})", points, intervals, lines))
    return [curve for curve in found if curve.points]


def draw(path: Path, curves: list[Curve], epochs: float) -> None:
    """The curves of what decides in one picture, over epochs. (The page shows those of what is only reported, too.)

    Args:
        epochs: in one step.
    """
    order = [curve for curve in curves if curve.decides]
    if not order:
        path.unlink(missing_ok=True)
        return
    height = -(-len(order) // _COLUMNS)
    tall = 2.6 * height + 0.9
    figure = Figure(figsize=(4.2 * _COLUMNS, tall), dpi=80)
    FigureCanvasAgg(figure)
    # By hand: matplotlib's own layout takes longer than the drawing.
    figure.subplots_adjust(left=0.04, right=0.99, top=1 - 0.3 / tall, bottom=1.1 / tall, hspace=0.42, wspace=0.16)
    places = figure.subplots(height, _COLUMNS, squeeze=False).ravel()
    colours = {name: f"C{number + 1}" for number, name in enumerate(BASELINES)}
    for place, curve in zip(places, order, strict=False):
        at = [step * epochs for step in curve.points]
        place.plot(at, list(curve.points.values()), "o-", color="C0", markersize=3, label="generated", zorder=3)
        both = [(step * epochs, *curve.intervals[step]) for step in curve.points if step in curve.intervals]
        if both:
            place.fill_between(*map(list, zip(*both, strict=True)), color="C0", alpha=0.15, linewidth=0)
        for style, name in zip(_STYLES, BASELINES, strict=True):
            if name in curve.lines:
                place.axhline(curve.lines[name], color=colours[name], linestyle=style, linewidth=1, label=name)
        place.set_title(curve.title, loc="left", fontsize=9)
        place.tick_params(labelsize=8)
        place.set_xlabel("epochs", fontsize=8)
    for place in places[len(order) :]:
        place.axis("off")
    labelled: dict[str, Any] = {}
    for place in places[: len(order)]:
        handles, labels = place.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    figure.legend(list(labelled.values()), list(labelled), loc="lower center", ncols=5, fontsize=8)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def for_board(curves: list[Curve]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The same for TensorBoard: a folder of its own for the checkpoints and each baseline -> curve -> step and value.

    A baseline's line has two points, at the first and the last checkpoint.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for curve in curves:
        tag = f"evaluation/{curve.name}"
        found.setdefault("generated", {})[tag] = list(curve.points.items())
        for name, value in curve.lines.items():
            ends = sorted({min(curve.points), max(curve.points)})
            found.setdefault(name.replace(",", "").replace(" ", "-"), {})[tag] = [(step, value) for step in ends]
    return found

"""Compute the coordinates of points, lines and ticks of an SVG plot."""

from __future__ import annotations

import math
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 210, 40, 332, 10, 178  # of a curve, and of the plot in it
_TRAINING_POINTS = 300  # of the curve of the training: more can't be seen


def thousands(number: float) -> str:
    """A whole number, its thousands apart."""
    return f"{number:,.0f}".replace(",", "\u202f")  # a narrow space that does not break


def curve(title: str, points: dict[int, float], lines: dict[str, float]) -> dict[str, Any]:
    """A drawing of values over steps, from step 0, with 0 on the axis of values; `lines` are the baselines'."""
    right = max(points)
    values = [*points.values(), *lines.values()]
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.05 * (high - low) or 1.0
    bottom, top = low - (room if low < 0 else 0), high + room

    def x(step: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * step / right, 1)

    def y(value: float) -> float:
        return round(_BOTTOM + (_TOP - _BOTTOM) * (value - bottom) / (top - bottom), 1)

    up, down = ticks(top, 5), [-value for value in ticks(-bottom, 3)[1:]] if bottom < 0 else []
    apart = up[1] if len(up) > 1 else top
    return {
        "title": title,
        "size": (_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM),
        "points": [(x(step), y(value), step, f"{value:.3g}") for step, value in points.items()],
        "lines": [(name, y(value), f"{value:.3g}") for name, value in lines.items()],
        "x_ticks": [(x(step), thousands(step)) for step in ticks(right, 4) if step == int(step)],
        "y_ticks": [(y(value), f"{value:g}") for value in [*up, *(v for v in down if -v >= apart)]],
    }


def ticks(top: float, most: int) -> list[float]:
    """Round numbers from 0 up to `top`, not more than `most` after 0."""
    unit = 10.0 ** math.floor(math.log10(top))
    step = next(unit * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10) if top / (unit * factor) < most + 1)
    return [round(n * step, 12) for n in range(int(top / step + 1e-9) + 1)]


def training_curve(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The generator's L1 over all steps, neighbours averaged to what can be seen; None before the first line."""
    size = -(-len(rows) // _TRAINING_POINTS)
    parts = [rows[start : start + size] for start in range(0, len(rows), size or 1)]
    points = {int(part[-1]["step"]): sum(row["l1"] for row in part) / len(part) for part in parts}
    return curve("L1 of the pictures in training (lower is better)", points, {}) if points else None

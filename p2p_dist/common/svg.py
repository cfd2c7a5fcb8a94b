"""Draw plots as SVG, without any library: a login node draws them too.

A plot is put into a page, whose CSS variables may give other colours, or with others and a legend into a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from p2p_dist.common import console

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 220, 50, 298, 44, 184  # of a plot, and of the lines in it
_KEY = 35  # width of a line in a legend
_MARKED = 40  # points; of more, none is marked
_GAP, _ROW, _LETTER = 20, 20, 7  # in a file: between plots, of a legend, and the width of a letter
_APART = 26  # at least, of two ticks of a logarithmic x

_OF_LINES = ("#b0632a", "#7d8590", "#4d8a4a", "#7a5aa6", "#a63d5a", "#2f7d7d", "#8a7a1f", "#5a5fb0", "#a05aa0")
COLOURS = {"page": "#fafaf8", "text": "#21242a", "quiet": "#626975", "line": "#dfe1e5", "accent": "#1f6f8b"}
COLOURS |= {f"b{number}": colour for number, colour in enumerate(_OF_LINES)}
"""Colours of a file. In a page, the CSS variables of these names come first."""

# Twice each: a program that knows no variables takes the first.
STYLE = "".join(f".plot .{name}{{color:{colour};color:var(--{name},{colour})}}" for name, colour in COLOURS.items()) + (
    ".plot text{font:12px system-ui,sans-serif;fill:currentColor}.plot .title{font-size:13px;font-weight:600}"
    ".plot polyline{fill:none;stroke:currentColor;stroke-width:1.5;stroke-linejoin:round}"
    ".plot .marked{stroke-width:2.2}.plot circle{fill:currentColor}.plot .interval{fill:currentColor;opacity:.17}"
    ".plot path{stroke:currentColor;stroke-width:.8}.plot .whisker{stroke-width:1.2;opacity:.55}"
)
"""CSS of all plots of a page or file."""


@dataclass(frozen=True)
class Line:
    """A line of a plot: x -> y, and x -> lowest and highest of its interval where there is one.

    colour: a name of COLOURS. dashes: lengths of dashes and gaps. marked: each point is a dot that tells its values.
    """

    label: str
    points: dict[float, float]
    interval: dict[float, tuple[float, float]] = field(default_factory=dict)
    colour: str = "accent"
    dashes: str = ""
    marked: bool = False


def thousands(number: float) -> str:
    """A whole number, its thousands apart."""
    return f"{number:,.0f}".replace(",", "\u202f")  # a narrow space that does not break


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high` at equal distances, of which there are not more than `most`."""
    least = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least * (1 - 1e-9))
    return [float(f"{n * step:.12g}") for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def plot(title: str, lines: Sequence[Line], x_label: str, y_label: str, *, log: bool = False) -> str:
    """An <svg> element: lines over x, the first in front.

    Args:
        x_label, y_label: names or units of the axes.
        log: both axes are logarithmic, and ticks of x are where points are; else both contain 0, and ticks of x are whole.
    """
    xs = sorted({x for line in lines for x in line.points})
    ys = [*(y for line in lines for y in line.points.values())]
    ys += [edge for line in lines for edges in line.interval.values() for edge in edges]
    low, high, right = min(ys), max(ys), xs[-1] or 1
    if log:
        x = _axis(xs[0] / 1.2, right * 1.2, _LEFT, _RIGHT, math.log10)
        y = _axis(low / 1.2, high * 1.2, _BOTTOM, _TOP, math.log10)
        x_ticks: list[float] = []
        for tick in xs:
            x_ticks += [tick] if not x_ticks or x(tick) - x(x_ticks[-1]) > _APART else []
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        y_ticks = [tick for n in decades for factor in (1, 2, 5) if _TOP <= y(tick := factor * 10.0**n) <= _BOTTOM]
    else:
        low, high = min(0.0, low), max(0.0, high)
        room = 0.05 * (high - low) or 1.0
        low, high = low - room * (low < 0), high + room * (high > 0 or low == 0)
        x, y = _axis(0, right, _LEFT, _RIGHT), _axis(low, high, _BOTTOM, _TOP)
        x_ticks, y_ticks = [tick for tick in ticks(0, right, 4) if tick == int(tick)], ticks(low, high, 6)
    about = _escape(f"{title}, {y_label}, over {x_label}")
    parts = [
        f'<svg class="plot" {_size(_WIDTH, _HEIGHT)} role="img" aria-label="{about}">',
        f'<text class="title text" y="13">{_escape(title)}</text><text class="quiet" y="30">{_escape(y_label)}</text>',
    ]
    for tick in y_ticks:
        parts.append(f'<path class="{"quiet" if tick == 0 else "line"}" d="M{_LEFT} {y(tick)}H{_RIGHT}"/>')
        parts.append(f'<text class="quiet" x="{_LEFT - 6}" y="{y(tick) + 4:g}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        parts.append(f'<text class="quiet" x="{x(tick)}" y="{_BOTTOM + 16}" text-anchor="middle">{thousands(tick)}</text>')
    parts.append(f'<text class="quiet" x="{_RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{_escape(x_label)}</text>')
    parts += [_drawn(line, x, y, x_label) for line in reversed(lines)]
    return "\n".join([*parts, "</svg>\n"])


def _axis(
    low: float, high: float, begin: float, end: float, scale: Callable[[float], float] = float
) -> Callable[[float], float]:
    """Gives the coordinate of a value on an axis from `begin` to `end`."""
    return lambda value: round(begin + (end - begin) * (scale(value) - scale(low)) / (scale(high) - scale(low)), 1)


def _drawn(line: Line, x: Callable[[float], float], y: Callable[[float], float], x_label: str) -> str:
    edges = sorted(line.interval.items())
    band = [(at, low) for at, (low, _) in edges] + [(at, high) for at, (_, high) in reversed(edges)]
    label = _escape(line.label)
    parts = [f'<g class="{line.colour}">']
    if band:
        parts.append(f'<polygon class="interval" points="{" ".join(f"{x(at)},{y(value)}" for at, value in band)}"/>')
    parts.append(_stroke(line, " ".join(f"{x(at)},{y(value)}" for at, value in line.points.items()), label))
    for at, value in line.points.items() if line.marked and len(line.points) <= _MARKED else ():
        said = f"{label}, {_escape(x_label)} {thousands(at)}: {value:.3g}"
        if at in line.interval:
            low, high = line.interval[at]
            said += f" ({low:.3g} to {high:.3g})"
            parts.append(f'<path class="whisker" d="M{x(at)} {y(low)}V{y(high)}"/>')
        parts.append(f'<circle cx="{x(at)}" cy="{y(value)}" r="3.2"><title>{said}</title></circle>')
    return "".join([*parts, "</g>"])


def _stroke(line: Line, points: str, label: str) -> str:
    kind = ' class="marked"' if line.marked else ""
    return f'<polyline{kind} stroke-dasharray="{line.dashes or "none"}" points="{points}"><title>{label}</title></polyline>'


def key(line: Line) -> str:
    """A line as it looks in a plot: an <svg> element for a legend."""
    dot = f'<circle cx="{_KEY / 2:g}" cy="6" r="3.2"/>' if line.marked else ""
    stroke = _stroke(line, f"0,6 {_KEY},6", _escape(line.label))
    return f'<svg class="plot" {_size(_KEY, 12)} aria-hidden="true"><g class="{line.colour}">{stroke}{dot}</g></svg>'


def document(plots: Sequence[str], lines: Sequence[Line], columns: int) -> str:
    """A file: plots side by side, and below them the legend of `lines`."""
    across = min(columns, len(plots))
    width = across * (_WIDTH + _GAP) + _GAP
    parts = []
    for number, one in enumerate(plots):
        row, column = divmod(number, across)
        parts.append(_moved(_GAP + column * (_WIDTH + _GAP), _GAP + row * (_HEIGHT + _GAP), one))
    below = _GAP + math.ceil(len(plots) / across) * (_HEIGHT + _GAP)
    apart = _KEY + 8 + _LETTER * max(len(line.label) for line in lines) + 10
    beside = max(1, (width - _GAP) // apart)
    for number, line in enumerate(lines):
        row, column = divmod(number, beside)
        label = f'<text class="text" x="{_KEY + 8}" y="10">{_escape(line.label)}</text>'
        parts.append(_moved(_GAP + column * apart, below + row * _ROW, key(line) + label))
    height = below + math.ceil(len(lines) / beside) * _ROW + _GAP
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" {_size(width, height)}>'
    begin += f'<style>{STYLE}</style><rect class="page" width="100%" height="100%" fill="currentColor"/>'
    return "\n".join([begin, *parts, "</svg>\n"])


def _size(width: int, height: int) -> str:
    return f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'


def _moved(x: int, y: int, content: str) -> str:
    return f'<g transform="translate({x} {y})">{content}</g>'


def _escape(text: str) -> str:
    return escape(console.one_line(text))

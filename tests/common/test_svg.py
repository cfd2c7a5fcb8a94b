"""What plots show: points, intervals and lines at their values, labels as they are and apart from each other."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from xml.etree.ElementTree import Element

import pytest

from p2p_dist.common import svg
from p2p_dist.common.svg import Line

HOSTILE = 'R&B <"loud"> \x1b[0m'
VALUES = Line("generated", {1000: 0.2, 2000: 0.6, 4000: -0.2}, {1000: (0, 0.4), 4000: (-0.4, 0.2)}, marked=True)
BASELINE = Line("silence", {0: 0.4, 4000: 0.4}, colour="b1", dashes="2 2.5")


def drawn(text: str) -> Element:
    """The elements of an <svg>, their names without a namespace."""
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def axes(plot: Element) -> tuple[dict[str, float], dict[str, float]]:
    """Where the ticks are, by their labels: of x and y."""
    labels = [(text.text or "", text) for text in plot.iter("text") if text.get("text-anchor")][:-1]
    heights = [
        float(re.findall(r"M\S+ (\S+)H", path.get("d", ""))[0]) for path in plot.iter("path") if "H" in path.get("d", "")
    ]
    of_y = [label for label, text in labels if text.get("text-anchor") == "end"]
    of_x = {label: float(text.get("x", "")) for label, text in labels if text.get("text-anchor") == "middle"}
    return of_x, dict(zip(of_y, heights, strict=True))


def places(points: str | None) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in (points or "").split())]


@pytest.mark.parametrize(
    ("low", "high", "most"), [(0, 0.0004, 4), (0, 0.99, 5), (-0.3, 1, 4), (0, 7, 4), (-90, 0, 4), (0, 3e6, 4), (-3, 21.4, 5)]
)
def test_ticks_are_few_round_and_reach_far(low: float, high: float, most: int) -> None:
    ticks = svg.ticks(low, high, most)
    step = ticks[1] - ticks[0]
    assert 0 in ticks and 2 <= len(ticks) <= most + 1
    assert low <= ticks[0] < low + step and high - step < ticks[-1] <= high * (1 + 1e-9)
    assert f"{step:.0e}"[0] in "125"


def test_points_interval_and_baseline_are_at_their_values() -> None:
    plot = drawn(svg.plot("grid", [VALUES, BASELINE], "step", "1 is best"))
    x, y = axes(plot)
    assert set(x) == {"0", *(f"{thousand}\u202f000" for thousand in (1, 2, 3, 4))} and {"-0.4", "0", "0.6"} <= set(y)
    at = {1000: x["1\u202f000"], 2000: x["2\u202f000"], 4000: x["4\u202f000"]}
    expected = [(at[1000], y["0.2"]), (at[2000], y["0.6"]), (at[4000], y["-0.2"])]
    below = min(float(text.get("y", "")) for text in plot.iter("text") if text.get("text-anchor") == "middle")
    assert below > 12 + max(y.values()) and x["0"] < at[1000] < at[2000] and y["0.6"] < y["0"] < y["-0.2"], "y grows downward"
    dots = list(plot.iter("circle"))
    assert [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in dots] == expected
    silence, generated = plot.iter("polyline")  # what comes later is in front
    assert places(generated.get("points")) == expected
    assert places(silence.get("points")) == [(x["0"], y["0.4"]), (at[4000], y["0.4"])]
    assert silence.get("stroke-dasharray") == "2 2.5"
    (band,) = plot.iter("polygon")
    corners = [(at[1000], y["0"]), (at[4000], y["-0.4"]), (at[4000], y["0.2"]), (at[1000], y["0.4"])]
    assert places(band.get("points")) == corners
    whiskers = [path.get("d") for path in plot.iter("path") if path.get("class") == "whisker"]
    assert whiskers == [f"M{at[1000]} {y['0']}V{y['0.4']}", f"M{at[4000]} {y['-0.4']}V{y['0.2']}"]
    assert [dot.findtext("title") for dot in dots[:2]] == [
        "generated, step 1\u202f000: 0.2 (0 to 0.4)",
        "generated, step 2\u202f000: 0.6",
    ]
    assert plot.get("aria-label") == "grid, 1 is best, over step"


@pytest.mark.parametrize("values", [{0: 0.0}, {1: 1.0}, {5: 3.0}, {5: -3.0}, {5: 0.0, 6: 0.0}])
def test_all_is_within_the_picture(values: dict[float, float]) -> None:
    plot = drawn(svg.plot("a", [Line("b", values, marked=True)], "step", ""))
    _, _, width, height = map(float, (plot.get("viewBox") or "").split())
    assert all(0 < float(dot.get("cx", "")) < width and 0 < float(dot.get("cy", "")) < height for dot in plot.iter("circle"))
    assert "0" in axes(plot)[1]
    labels = [text for text in plot.iter("text") if text.get("text-anchor") == "middle"]
    assert len({text.text for text in labels}) == len(labels), "steps are whole"
    lowest = max(float(dot.get("cy", "")) for dot in plot.iter("circle"))
    assert (lowest < float(labels[0].get("y", "")) - 16) or min(values.values()) == 0, "only 0 lies on the edge"


def test_equal_factors_are_equally_far_on_logarithmic_axes() -> None:
    speeds = Line("weak", {1: 10.0, 2: 20.0, 4: 40.0, 64: 640.0, 70: 700.0}, marked=True)
    plot = drawn(svg.plot("a", [speeds], "processes", "images/s", log=True))
    x, y = axes(plot)
    assert list(x) == ["1", "2", "4", "64"], "70 would be written over 64"
    assert list(y) == ["10", "20", "50", "100", "200", "500"]
    assert x["2"] - x["1"] == pytest.approx(x["4"] - x["2"], abs=0.2)
    assert y["10"] - y["20"] == pytest.approx(y["50"] - y["100"], abs=0.2)
    dot = next(plot.iter("circle"))
    assert (float(dot.get("cx", "")), float(dot.get("cy", ""))) == (x["1"], y["10"])


def test_any_text_is_shown_as_it_is() -> None:
    lines = [Line(HOSTILE, {1: 1.0}, marked=True)]
    file = drawn(svg.document([svg.plot(HOSTILE, lines, HOSTILE, HOSTILE)], lines, 1))
    visible = HOSTILE.replace("\x1b", "\\x1b")
    assert [text.text for text in file.iter("text")].count(visible) == 4
    assert (
        not {element.tag for element in file.iter()}
        - {"svg", "style", "rect", "g", "text", "title"}
        - {*("path", "polyline", "circle")}
    )


def test_many_points_are_not_marked() -> None:
    assert "<circle" not in svg.plot("a", [Line("b", dict.fromkeys(range(1, 300), 1.0), marked=True)], "step", "")


def test_texts_of_a_file_do_not_meet() -> None:
    lines = [
        Line("a name as long as any baseline"[: 30 - 4 * n], {0: 1e-3 * n, 3_000_000: -1.0}, colour=f"b{n}") for n in range(6)
    ]
    for columns in (1, 3):
        file = drawn(svg.document([svg.plot("score", lines, "step", "higher is better")] * 5, lines, columns))
        boxes = []
        _, _, width, height = map(float, (file.get("viewBox") or "").split())
        for group in file.findall("g"):
            left, top = map(float, re.findall(r"[\d.]+", group.get("transform", "")))
            for text in group.iter("text"):
                size = 6.8 * len(text.text or "")
                shift = {"end": size, "middle": size / 2}.get(text.get("text-anchor", ""), 0)
                x, y = left + float(text.get("x", 0)) - shift, top + float(text.get("y", 0))
                boxes.append((x, y - 9, x + size, y + 3))
            for key in group.findall("svg"):
                if key.get("aria-hidden"):
                    boxes.append((left, top, left + float(key.get("width", "")), top + 12))
        assert len(boxes) > 60
        assert all(x >= 0 and right <= width and y >= 0 and bottom <= height for x, y, right, bottom in boxes)
        assert not [(a, b) for a, b in combinations(boxes, 2) if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]

"""The measures over steps: their colours, and what TensorBoard shows."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from p2p_dist.common import svg
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.report import curves, page
from tests.evaluate.finished_run import make


def test_tensorboard_shows_the_measures_with_the_baselines_as_lines(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5)
    page.write(run, settings)
    assert not (run.path / "tensorboard").exists()
    settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, tensorboard=True))
    for _ in range(2):  # a second page writes no point twice
        page.write(run, settings)
    shown = {}
    for folder in (run.path / "tensorboard" / "evaluation").iterdir():
        found = EventAccumulator(str(folder))
        found.Reload()
        shown[folder.name] = [(event.step, round(event.value, 2)) for event in found.Scalars("evaluation/lock8")]
    assert shown == {
        "generated": [(5, 0.15), (10, 0.6)],
        "copy-the-input": [(5, 0.31), (10, 0.31)],
        "silence": [(5, 0.0), (10, 0.0)],
        "ceiling": [(5, 0.98), (10, 0.98)],
    }


def test_curves_can_be_told_from_the_page_in_light_and_dark() -> None:
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for lines; a file has the colours of the light page."""
    css = (Path(page.__file__).parent / "templates" / "page.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", block)) for block in css.split("@media", 1))
    assert light.items() >= {name: colour for name, colour in svg.COLOURS.items() if not re.fullmatch(r"b\d", name)}.items()
    for colours in (svg.COLOURS, svg.COLOURS | dark):
        assert colours.keys() >= {line.colour for line in _all_lines()}
        for name in ("text", "quiet"):
            assert _contrast(colours[name], colours["page"]) >= 4.5, name
        for line in _all_lines():
            assert _contrast(colours[line.colour], colours["page"]) >= 3, line
    assert {f"b{number}" for number in range(len(BASELINES))} <= dark.keys()
    assert len({(line.colour, line.dashes) for line in _all_lines()}) == len({line.dashes for line in _all_lines()[1:]}) + 1


def _all_lines() -> list[svg.Line]:
    return curves.Curve("score", "score", "higher is better", {1: 0.5}, {}, dict.fromkeys(BASELINES, 0.5)).lines()


def _contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours, #rrggbb."""
    shares = ([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in (one, other))
    linear = ([s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in rgb] for rgb in shares)
    dim, bright = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (bright + 0.05) / (dim + 0.05)

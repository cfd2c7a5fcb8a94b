"""Ticks of the curves."""

from __future__ import annotations

import pytest

from p2p_dist.evaluate.report import svg


@pytest.mark.parametrize(("top", "most"), [(0.0004, 4), (0.99, 5), (1, 4), (7, 4), (90, 4), (3_000_000, 4), (21.4, 5)])
def test_ticks_are_few_and_reach_far(top: float, most: int) -> None:
    ticks = svg.ticks(top, most)
    assert ticks[0] == 0 and 2 <= len(ticks) <= most + 1
    assert top / 2 < ticks[-1] <= top * (1 + 1e-9)

"""What every measure has, whichever it is."""

from __future__ import annotations

from p2p_dist.evaluate.measures.kinds import AMOUNT, REAL, REPORTED, TIME, Measure, OfStem
from p2p_dist.evaluate.measures.table import MEASURES


def test_an_uncertain_distance_is_marked() -> None:
    assert MEASURES["mmd"].text(35.126) == "35.13" and MEASURES["mmd"].text(35.126, certain=False) == "≈ 35.13"
    assert MEASURES["lock8"].text(1.0, certain=False) == "1.00"


def test_a_measure_that_is_only_reported_counts_in_no_score() -> None:
    of_stem = OfStem(lambda *_: 1.0)
    decides = [Measure("a", "high", family, "", of_stem).decides for family in (TIME, REAL, AMOUNT, REPORTED)]
    assert decides == [True, True, True, False]


def test_a_value_has_the_digits_of_its_measure() -> None:
    assert Measure("a", "low", TIME, "", OfStem(lambda *_: 1.0), digits=3).text(-1.23456) == "-1.235"

"""The limits of the evaluation's settings, and what may change from one start of a run to the next."""

import dataclasses

import pytest

from p2p_dist.settings.config import Evaluate

LIMITS = [
    ("songs", 1, 0, "songs must be greater than 0"),
    ("seconds", 0.0, -1.0, "seconds must be from 0 to 1e9"),
    ("iterations", 1, 0, "iterations must be greater than 0"),
    ("seeds", 1, 0, "seeds must be greater than 0"),
    ("split", "valid", "train", "split must be one of test, valid"),
    ("time_weight", 0.0, -0.5, "time-weight must be from 0 to 1e9"),
    ("real_weight", 0.0, float("inf"), "real-weight must be from 0 to 1e9"),
    ("amount_weight", 0.0, float("nan"), "amount-weight must be from 0 to 1e9"),
]


@pytest.mark.parametrize(("name", "taken", "refused", "said"), LIMITS)
def test_limits(name, taken, refused, said):
    assert getattr(Evaluate(**{name: taken}), name) == taken
    with pytest.raises(ValueError, match=rf"^evaluate\.{said}"):
        Evaluate(**{name: refused})


def test_one_weight_of_the_score_is_enough_and_none_is_refused():
    none = {"time_weight": 0.0, "real_weight": 0.0, "amount_weight": 0.0}
    for name in none:
        Evaluate(**{**none, name: 0.1})
    with pytest.raises(ValueError, match="must not all be 0"):
        Evaluate(**none)


def test_only_the_songs_may_be_chosen_anew():
    """Another value of any other setting gives figures that can't be compared with those of the run."""
    assert [entry.name for entry in dataclasses.fields(Evaluate) if entry.metadata.get("resource")] == ["allow_overlap"]

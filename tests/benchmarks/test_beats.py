"""What the benchmark of beats calls right."""

import numpy as np
import pytest

from p2p_dist.audio.beats import Beats
from tests.benchmarks.beats import judged, late_of

TRUE = Beats(120, 0.1)


@pytest.mark.parametrize(
    ("found", "tempo", "beats", "eighths", "late"),
    [
        (Beats(120, 0.11), True, True, True, 10.0),
        (Beats(120, 0.345), True, False, True, -5.0),
        (Beats(120, 0.22), True, False, False, None),
        (Beats(90, 0.1), False, False, False, None),
        (Beats(121.3, 0.1), False, False, False, None),
        (None, False, False, False, None),
    ],
)
def test_right_is_a_tempo_and_beats_near_true_ones(found, tempo, beats, eighths, late):
    one = judged(found, TRUE, 60.0)
    assert (one["tempo"], one["beats"], one["eighths"]) == (tempo, beats, eighths)
    assert np.isnan(one["late"]) if late is None else one["late"] == pytest.approx(late, abs=1e-6)


def test_lateness_is_of_the_songs_that_are_right():
    songs = [{"comb": judged(found, TRUE, 60.0)} for found in (Beats(120, 0.11), Beats(120, 0.12), Beats(90, 0.1))]
    assert late_of(songs, "comb") == pytest.approx([12.5, 15.0, 17.5])
    assert np.isnan(late_of(songs, "network")).all()

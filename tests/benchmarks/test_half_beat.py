"""What the benchmark of the half beat learns from."""

import numpy as np
import pytest

from p2p_dist.model.pattern import GRID
from tests.benchmarks.half_beat import changes, judge_of, right


def test_the_spectrum_changes_where_a_chord_does():
    levels = np.zeros((4, 8 * GRID))
    levels[:2, 4 * GRID :] = 1.0  # half of the bands from beat 4 on
    assert changes(levels, 1, 0) == pytest.approx([0, 0, 0, 0, 0.5, 0, 0, 0])
    assert changes(levels, 1, GRID // 2)[3:5] == pytest.approx([0.25, 0.25])
    assert changes(levels, 2, 0)[3:6] == pytest.approx([0.25, 0.5, 0.25])


def test_a_judge_learns_which_difference_tells_beats():
    random = np.random.default_rng(0)
    songs = [random.normal(0, 1, (5, 3)) + np.array([0, 2.0, 0]) for _ in range(20)]
    judge = judge_of(songs)
    assert abs(judge).argmax() == 1 and judge[1] > 0
    assert right(songs, judge) == 20 and right([-song for song in songs], judge) == 0

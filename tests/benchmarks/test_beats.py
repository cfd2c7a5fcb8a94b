"""What the benchmark of beats calls right."""

import numpy as np
import pytest

from p2p_dist.audio.attacks import RATE
from p2p_dist.audio.beats import Beats
from tests.benchmarks.beats import bent, judged, late_of, near, time_map

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


def test_time_is_bent_as_it_is_said_to_be():
    times, clicked = time_map("ritard", 30.0, seed=0)
    speed = np.diff(clicked) / np.diff(times)
    assert speed[0] == pytest.approx(1.02, abs=1e-3) and speed[-1] == pytest.approx(0.95, abs=1e-3)
    for drift, most in (("sway", 0.031), ("wander", 0.06)):
        speed = np.diff(time_map(drift, 90.0, 1)[1]) / 0.05
        assert np.ptp(speed) > 0.02 and abs(speed - 1).max() < most
    sound = np.zeros(30 * RATE, np.float32)
    sound[20 * RATE] = 1
    found = int(np.abs(bent(sound, times, clicked)).argmax()) / RATE
    assert found == pytest.approx(np.interp(20.0, clicked, times), abs=1e-3) and abs(found - 20) > 0.05


def test_near_are_beats_at_beats_or_between():
    true = np.array([0.0, 0.5, 1.0, 1.6, 2.2])
    assert near(true[1:] + 0.02, true) == [1, 1, 0, 0]
    assert near(np.array([0.25, 1.3, 1.01]), true) == pytest.approx([1 / 3, 1, 1 / 3, 1])
    assert near(np.array([9.0]), true) == [0, 0, 0, 0]

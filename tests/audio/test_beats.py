"""Tempo and beats of a steady song."""

import numpy as np
import pytest

from p2p_dist.audio.beats import Beats, track_beats

FRAME = 512 / 22050


def pulse(bpm, first, seconds=90, jitter=0.0, weak=0.4):
    """An onset envelope with a hit on each beat and a weaker one on each eighth note between."""
    random = np.random.default_rng(0)
    rise = random.random(int(seconds / FRAME)) * 0.05
    for number, time in enumerate(np.arange(first, seconds - 0.1, 30 / bpm)):
        frame = round((time + random.normal() * jitter) / FRAME)
        if 0 <= frame < len(rise):
            rise[frame] += 1.0 if number % 2 == 0 else weak
    return rise


@pytest.mark.parametrize("bpm", [97.31, 110.0, 120.0, 132.5, 171.2])
def test_the_tempo_is_found_to_a_twentieth_of_a_beat_a_minute(bpm):
    found = track_beats(pulse(bpm, 0.2), FRAME)
    assert found is not None and found.bpm == pytest.approx(bpm, abs=0.05)
    off = (found.first - 0.2 + 30 / bpm) % (60 / bpm) - 30 / bpm
    assert abs(off) < 0.035, "the phase of the beat, within the ear's tolerance"


def test_human_timing_does_not_throw_it_off():
    found = track_beats(pulse(110, 0.3, jitter=0.012), FRAME)
    assert found is not None and found.bpm == pytest.approx(110, abs=0.1)


def test_nothing_has_no_tempo():
    assert track_beats(np.zeros(2000), FRAME) is None


def test_beats_and_eighth_notes_are_listed():
    beats = Beats(120, 0.7)
    assert np.allclose(beats.times(2), [0.2, 0.7, 1.2, 1.7])
    assert np.allclose(beats.times(1.2, per_beat=2), [0.2, 0.45, 0.7, 0.95])

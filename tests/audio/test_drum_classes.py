"""Strokes of a drum stem are found at their times with their classes, alone and together, loud and quiet."""

import numpy as np
import pytest

from p2p_dist.audio import drum_classes
from p2p_dist.audio.drum_classes import CLASSES, REST, Onset, activations, onsets, rests
from p2p_dist.audio.hits import RATE
from p2p_dist.audio.stems import resample
from tests.audio.strokes import strokes

PATTERN = {
    "kick": ("kick", [0.25, 1.25, 2.25, 3.25]),
    "snare": ("snare", [0.75, 1.75, 2.75, 3.75]),
    "hat": ("closed", [0.5, 1.0, 1.5, 2.0]),
}


def played(pattern=PATTERN, seconds=4.4, loud=1.0):
    sound = sum(strokes(kind, times, seconds, loud) for kind, times in pattern.values())
    return sound.astype(np.float32)


@pytest.fixture(scope="module")
def found():
    return onsets(played(), RATE)


@pytest.mark.parametrize("kind", PATTERN)
def test_each_stroke_has_its_class_and_its_time_to_three_milliseconds(found, kind):
    times = [onset.time for onset in found if onset.kind == kind]
    assert np.allclose(times, PATTERN[kind][1], atol=0.003), times


def test_nothing_else_is_found(found):
    assert len(found) == sum(len(times) for _, times in PATTERN.values())
    assert found == sorted(found, key=lambda onset: onset.time)


def test_a_kick_and_a_hat_at_once_are_both_and_no_snare():
    sound = played({"kick": ("kick", [0.5, 1.0, 1.5, 2.0]), "hat": ("open", [0.5, 1.0, 1.5, 2.0])}, 2.6)
    kinds = [onset.kind for onset in onsets(sound, RATE)]
    assert sorted(kinds) == ["hat"] * 4 + ["kick"] * 4


def test_a_tone_is_another_class():
    time = np.arange(RATE // 2) / RATE
    tom = 0.5 * np.sin(2 * np.pi * 600 * time) * np.exp(-time / 0.1)
    sound = played(seconds=6.0)
    for at in (4.6, 5.2):
        sound[int(at * RATE) :][: len(tom)] += tom[: len(sound) - int(at * RATE)].astype(np.float32)
    others = [onset.time for onset in onsets(sound, RATE) if onset.kind == "other"]
    assert np.allclose(others, [4.6, 5.2], atol=0.004)


def test_strength_is_the_amplitude_relative_to_the_loudest():
    sound = strokes("kick", [0.3, 1.3, 2.3], 4) + strokes("kick", [0.8, 1.8, 2.8], 4, loud=0.4)
    found = onsets(sound.astype(np.float32), RATE)
    assert [onset.kind for onset in found] == ["kick"] * 6
    assert np.allclose([onset.strength for onset in found], [1, 0.4] * 3, atol=0.08)


def test_neither_level_nor_rate_matters(found):
    assert [(o.time, o.kind) for o in onsets(played(loud=0.01), RATE)] == [(o.time, o.kind) for o in found]
    again = onsets(resample(played(), RATE, 44100), 44100)
    assert [o.kind for o in again] == [o.kind for o in found]
    assert np.allclose([o.time for o in again], [o.time for o in found], atol=0.002)


def test_what_rises_little_is_no_stroke():
    """Beside far stronger strokes, within 29 ms of one, or no more than what is around it."""
    rise = np.zeros(3000)
    rise[100::200] = 30.0
    rise[200::200] = 2.0
    rise[104::200] = 20.0
    assert drum_classes._peaks(rise).tolist() == list(range(101, 3000, 200))
    rise[rise > 2] = 10.0
    rise[104::200] = 0.0
    assert drum_classes._peaks(rise).tolist() == list(range(101, 3000, 100)), "not weak beside these"
    waves = 3 + 0.5 * np.sin(np.arange(3000) / 4)
    assert not len(drum_classes._peaks(waves)[3:-3])


def test_a_click_is_no_snare_nor_is_one_that_is_heard_far_under_a_kick():
    time = np.arange(RATE // 4) / RATE
    click = 0.5 * np.random.default_rng(0).standard_normal(len(time)) * np.exp(-time / 0.013)
    sound = played({"kick": ("kick", [0.5, 1.5, 2.5, 3.5]), "snare": ("snare", [1.0, 2.0])}, 5.0)
    sound[3 * RATE : 3 * RATE + len(click)] += click.astype(np.float32)
    sound += strokes("snare", [3.5], 5.0, loud=0.02).astype(np.float32)
    found = onsets(sound, RATE)
    assert [round(onset.time, 1) for onset in found if onset.kind == "snare"] == [1.0, 2.0]
    assert {round(onset.time, 1) for onset in found} == {0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5}


def test_noise_of_the_recording_is_no_stroke():
    sound = played({"kick": ("kick", [0.5])}, 12.0)
    sound += np.random.default_rng(0).normal(0, 3e-4, len(sound)).astype(np.float32)
    assert [onset.kind for onset in onsets(sound, RATE)] == ["kick"]


def test_silence_and_almost_nothing_have_no_strokes():
    assert onsets(np.zeros(3 * RATE, np.float32), RATE) == []
    assert onsets(np.zeros(0, np.float32), RATE) == []
    assert onsets(np.ones(100, np.float32), RATE) == []


def test_rests_are_long_gaps_without_what_rings_into_them():
    found = [Onset(1.0, "kick", 1.0), Onset(2.5, "hat", 1.0), Onset(6.0, "kick", 1.0)]
    assert rests(found, 10.0) == [(3.0, 5.5), (6.5, 10.0)]
    assert rests([], 10.0) == [(0.0, 10.0)]


def test_activations_are_bumps_at_the_times_of_the_strokes():
    curves = activations([Onset(0.1, "kick", 1.0), Onset(0.205, "snare", 0.5), Onset(0.21, "snare", 0.4)], 800, 0.01)
    assert curves.shape == (len(CLASSES) + 1, 800) and curves.dtype == np.float32
    kick, snare, hat, other, rest = curves
    assert kick.argmax() == 10 and kick[10] == pytest.approx(1) and kick[11] == kick[9] == pytest.approx(np.exp(-0.125))
    assert snare[20] == pytest.approx(snare.max()) and snare.max() < 0.5 and snare[21] >= 0.4
    assert not hat.any() and not other.any() and kick[25] == 0
    assert rest[60] == 0 and rest[71] == 1 and rest[-1] == 1 and REST == 4


def test_a_stroke_at_either_end_is_drawn_as_far_as_there_are_frames():
    curves = activations([Onset(-0.005, "kick", 1.0), Onset(0.995, "hat", 1.0)], 100, 0.01)
    assert curves[0, 0] > 0.9 and curves[2, 99] > 0.9

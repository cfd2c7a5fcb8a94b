"""Onsets: where they are, how they match, what chance would score."""

import numpy as np
import pytest

from p2p_dist.evaluate.measures import onsets


def clicks(times, seconds=5.0):
    sound = np.zeros(int(seconds * onsets.RATE), np.float32)
    random = np.random.default_rng(0)
    for time in times:
        start = int(time * onsets.RATE)
        sound[start : start + 400] += random.standard_normal(400).astype(np.float32) * 0.3
    return sound


def test_frames_are_where_the_sound_is():
    """Taken with other settings than are assumed, a spectrogram gives frames that are 46 ms late; here none is."""
    times = np.array([0.5, 1.003, 1.49, 2.217, 3.0, 4.111])
    found = onsets.peaks(onsets.envelope(onsets.mel(clicks(times)))) * onsets.FRAME
    assert len(found) == len(times)
    assert np.abs(found - times).max() <= onsets.FRAME


def test_matching_is_in_order_and_each_onset_counts_once():
    assert onsets.f_score(np.array([10, 20, 30]), np.array([10, 21, 29]), 1) == 1.0
    assert onsets.f_score(np.array([10, 20, 30]), np.array([12, 22, 32]), 1) == 0.0
    assert onsets.f_score(np.array([10]), np.array([9, 10, 11]), 1) == pytest.approx(2 / 4)
    assert onsets.f_score(np.array([10, 12]), np.array([11]), 1) == pytest.approx(2 / 3)
    assert onsets.f_score(np.array([], int), np.array([], int), 1) == 0.0


def test_random_onsets_are_worth_nothing_beyond_chance():
    random = np.random.default_rng(0)
    scores = []
    for _ in range(60):
        true, found = (np.sort(random.choice(256, n, replace=False)) for n in (16, 60))
        scores.append(onsets.beyond_chance(true, found, 2, 256))
    assert abs(np.mean(scores)) < 0.03
    assert onsets.beyond_chance(true, true, 1, 256) == 1.0


def test_a_metronome_on_the_grid_locks_and_one_off_it_does_not():
    beat = 0.4
    on, off = (clicks(np.arange(0.4, 4.7, beat) + shift) for shift in (0.0, beat / 4))
    grid = np.rint(np.arange(0, 5, beat / 2) / onsets.FRAME).astype(int)
    values = [onsets.on_grid(onsets.envelope(onsets.mel(sound)), grid) for sound in (on, off)]
    assert values[0] > 2 and values[1] < 0.5
    assert onsets.on_grid(np.zeros(100), grid) is None
    assert onsets.on_grid(np.ones(100), np.array([500])) is None


def test_bands_are_kick_snare_and_cymbals():
    time = np.arange(onsets.RATE) / onsets.RATE
    for name, hertz in (("low", 80), ("mid", 250), ("mid", 900), ("mid", 2300), ("high", 5500), ("high", 8000)):
        loudest = int(onsets.mel(np.sin(2 * np.pi * hertz * time).astype(np.float32)).sum(axis=1).argmax())
        assert [band for band, mels in onsets.bands().items() if mels[loudest]] == [name]


def test_envelopes_correlate_with_themselves_and_a_flat_one_with_nothing():
    rise = onsets.envelope(onsets.mel(clicks([0.5, 1.2, 3.0])))
    assert rise[0] == 0 and (rise >= 0).all()
    assert onsets.correlation(rise, rise) == pytest.approx(1)
    assert onsets.correlation(rise, np.zeros_like(rise)) is None


def test_an_onset_is_a_peak_that_stands_out_by_a_tenth_and_is_counted_once():
    rise = np.zeros(100)
    rise[[10, 11, 30, 50, 70]] = 1.0, 1.0, 0.11, 0.12, 1.0
    assert onsets.peaks(rise).tolist() == [10, 50, 70]


def test_a_rise_counts_from_sixty_decibels_under_the_peak():
    power = np.full((64, 20), 1e-9)
    power[:, 5:] = 1e-5
    power[0] = 1.0
    assert onsets.envelope(power)[5] == pytest.approx(10 * 63 / 64)


def test_chance_is_that_of_onsets_moved_to_both_sides():
    for found in (93, 107):
        assert onsets.beyond_chance(np.array([100]), np.array([found]), 1, 256) == pytest.approx(-1 / 7)

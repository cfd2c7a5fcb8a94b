"""The measures: known answers, and what they say when there is nothing to measure."""

import numpy as np
import pytest

from p2p_dist.evaluate import metrics

RATE = 44100


def hits(times, seconds=3.0, level=0.3):
    """(samples, 2): a burst of noise at each time."""
    random = np.random.default_rng(0)
    sound = np.zeros(int(seconds * RATE), np.float32)
    burst = (random.standard_normal(4000) * np.exp(-np.arange(4000) / 600)).astype(np.float32) * level
    for time in times:
        start = int(time * RATE)
        sound[start : start + 4000] += burst[: len(sound) - start]
    return np.repeat(sound[:, None], 2, axis=1)


BEATS = np.arange(0.5, 2.9, 0.25)


def test_the_truth_is_perfect():
    truth, heard = hits(BEATS), hits([0.1, 1.1])
    row = metrics.measure(truth, truth, heard, RATE)
    assert row["stem_l1"] == pytest.approx(0, abs=1e-4)
    assert row["mix_l1"] == pytest.approx(0, abs=1e-4)
    assert row["onset_f1"] == 1.0
    assert set(row) == set(metrics.MEASURES)


def test_onsets_are_found_where_they_are():
    found = metrics.onset_times(metrics.mono(hits(BEATS), RATE, metrics.RATE))
    assert len(found) == len(BEATS)
    # Not 46 ms late, as frames come when a spectrogram is taken with other settings than are assumed.
    assert np.abs(found - BEATS).max() < 0.024


def test_hits_at_other_times_and_silence_score_nothing():
    truth = hits(BEATS)
    late = hits(BEATS + 0.12)
    assert metrics.measure(late, truth, truth, RATE)["onset_f1"] == 0.0
    assert metrics.measure(np.zeros_like(truth), truth, truth, RATE)["onset_f1"] == 0.0


def test_twice_as_loud_is_six_decibels_where_there_is_sound():
    random = np.random.default_rng(0)
    noise = random.standard_normal(30_000).astype(np.float32) * 0.1
    assert metrics.log_mel_l1(2 * noise, noise) == pytest.approx(20 * np.log10(2), abs=0.01)


def test_the_range_is_eighty_decibels():
    random = np.random.default_rng(0)
    noise = random.standard_normal(30_000).astype(np.float32) * 0.1
    against_silence = metrics.log_mel_l1(np.zeros_like(noise), noise)
    assert against_silence is not None and 50 < against_silence <= 80


def test_what_can_not_be_measured_is_absent_and_not_zero():
    silence, something = np.zeros((RATE, 2), np.float32), hits([0.5], 1.0)
    row = metrics.measure(something, silence, something, RATE)
    assert row["stem_l1"] is None and row["onset_f1"] is None
    assert row["mix_l1"] is not None
    mean = metrics.mean([row, metrics.measure(something, something, something, RATE)])
    assert mean["onset_f1"] == 1.0, "a song without the stem does not count"
    assert metrics.mean([row])["onset_f1"] is None

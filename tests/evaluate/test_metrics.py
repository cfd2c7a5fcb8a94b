"""The measures: known answers, and what they say when there is nothing to measure."""

import numpy as np
import pytest

from p2p_dist.audio.beats import Beats
from p2p_dist.evaluate import descriptors, metrics, onsets

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


def measure(stem, truth, heard):
    """All measures, on a grid of eighth notes at 120 beats a minute."""
    return metrics.measure(stem, truth, heard, RATE, Beats(120, 0.0)).row


BEATS = np.arange(0.5, 2.9, 0.25)


def test_the_truth_is_perfect():
    truth, heard = hits(BEATS), hits([0.1, 1.1])
    row = measure(truth, truth, heard)
    assert row["stem_l1"] == pytest.approx(0, abs=1e-4)
    assert row["mix_l1"] == pytest.approx(0, abs=1e-4)
    for name in ("onset_f1", "ec1", "f1_beyond_chance", "f1t_beyond_chance", "lock8", "flux_ratio", "density_ratio"):
        assert row[name] == pytest.approx(1), name
    assert row["level_error"] == pytest.approx(0, abs=1e-4)
    assert set(row) == set(metrics.MEASURES)


def test_onsets_are_found_where_they_are():
    found = metrics.onset_times(metrics.mono(hits(BEATS), RATE, metrics.RATE))
    assert len(found) == len(BEATS)
    # Not 46 ms late, as frames come when a spectrogram is taken with other settings than are assumed.
    assert np.abs(found - BEATS).max() < 0.024


def test_hits_at_other_times_and_silence_score_nothing():
    truth = hits(BEATS)
    late = hits(BEATS + 0.125)
    row = measure(late, truth, truth)
    assert row["onset_f1"] == 0.0 and row["ec1"] < 0.1 and row["f1t_beyond_chance"] <= 0 and row["lock8"] < 0.2
    assert row["flux_ratio"] == pytest.approx(1, abs=0.1), "as many and as sharp"
    row = measure(np.zeros_like(truth), truth, truth)
    assert row["onset_f1"] == 0.0 and row["density_ratio"] == 0.0 and row["lock8"] <= 0
    assert row["ec1"] is None and row["level_error"] is None, "of nothing there is neither"


def test_ten_decibels_too_quiet_is_a_level_error_and_nothing_else():
    truth = hits(BEATS)
    row = measure(truth * 10**-0.5, truth, hits([0.1, 1.1]))
    assert row["level_error"] == pytest.approx(10, abs=0.01)
    assert row["ec1"] == pytest.approx(1, abs=0.01) and row["onset_f1"] == 1.0


def test_more_hits_please_the_plain_score_and_not_the_one_beyond_chance():
    """Every 60 ms something: half of the true onsets are met, as anywhere else."""
    truth = hits(np.array([0.53, 0.9, 1.31, 1.62, 2.05, 2.5]))
    row = measure(hits(np.arange(0.1, 2.9, 0.06), level=0.2), truth, hits([0.1, 1.1]))
    assert row["onset_f1"] > 0.15 and row["density_ratio"] > 3
    assert row["f1t_beyond_chance"] < 0.1


def test_descriptors_tell_drums_from_noise():
    random = np.random.default_rng(1)
    windows = [hits(np.sort(random.uniform(0.2, 5.5, 14)), 5.9, 0.3)[:, 0] for _ in range(16)]
    noise = [(random.standard_normal(len(windows[0])) * 0.1).astype(np.float32) for _ in range(8)]
    drums, mush = (
        [descriptors.describe(onsets.mel(metrics.mono(w[:, None], RATE, metrics.RATE))) for w in part]
        for part in (windows, noise)
    )
    assert drums[0].shape == (41,)
    same, other = (
        descriptors.distance(np.array(drums[:8]), np.array(drums[8:])),
        descriptors.distance(np.array(mush), np.array(drums[8:])),
    )
    assert abs(same) < 60 < other
    assert descriptors.distance(np.array(drums[:1]), np.array(drums)) is None


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
    nothing = metrics.measure(something, silence, something, RATE, None)
    assert nothing.row["stem_l1"] is None and nothing.row["onset_f1"] is None and nothing.row["lock8"] is None
    assert nothing.row["mix_l1"] is not None
    full = metrics.measure(something, something, something, RATE, None)
    mean = metrics.mean([nothing, full], [nothing.described, full.described])
    assert mean["onset_f1"] == 1.0, "a song without the stem does not count"
    assert mean["mmd"] is None
    assert metrics.mean([nothing], [nothing.described])["onset_f1"] is None

"""The measures: known answers, and what they say when there is nothing to measure."""

import numpy as np
import pytest

from p2p_dist.audio.beats import Beats
from p2p_dist.evaluate.measures import averages
from p2p_dist.evaluate.measures import measure as measures
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.evaluate.measures.truth import Truth
from p2p_dist.settings.config import Data
from tests.evaluate.measures.measured import BEATS, RATE, hits


def measure(stem, truth, heard):
    """All measures, on a grid of eighth notes at 120 beats a minute."""
    return measured(stem, truth, heard, Beats(120, 0.0)).row


def measured(stem, true, heard, beats=None):
    return measures.measure(stem, Truth(true, heard, RATE, beats, Data()))


def test_the_truth_is_perfect():
    truth, heard = hits(BEATS), hits([0.1, 1.1])
    row = measure(truth, truth, heard)
    assert row["stem_l1"] == pytest.approx(0, abs=1e-4)
    assert row["mix_l1"] == pytest.approx(0, abs=1e-4)
    for name in ("onset_f1", "ec1", "f1_beyond_chance", "f1t_beyond_chance", "lock8", "flux_ratio", "density_ratio"):
        assert row[name] == pytest.approx(1), name
    assert row["level_error"] == pytest.approx(0, abs=1e-4)
    assert set(row) == set(MEASURES)


def test_of_the_measures_that_are_named_alone_there_are_values_and_reasons():
    truth, names = hits(BEATS), ("lock8", "mr_log", "ec1")
    every = measured(truth, truth, truth, Beats(120, 0.0))
    some = measures.measure(truth, Truth(truth, truth, RATE, Beats(120, 0.0), Data()), names)
    assert some.row == {name: value if name in names else None for name, value in every.row.items()}
    silent = measures.measure(truth, Truth(np.zeros_like(truth), truth, RATE, None, Data()), names)
    assert set(silent.absent) <= set(names) and silent.absent


def test_hits_at_other_times_and_silence_score_nothing():
    truth = hits(BEATS)
    late = hits(BEATS + 0.125)
    row = measure(late, truth, truth)
    assert row["onset_f1"] == 0.0 and row["ec1"] < 0.1 and row["f1t_beyond_chance"] <= 0 and row["lock8"] < 0.2
    assert row["flux_ratio"] == pytest.approx(1, abs=0.1), "as many and as sharp"
    row = measure(np.zeros_like(truth), truth, truth)
    assert row["onset_f1"] == 0.0 and row["density_ratio"] == 0.0 and row["lock8"] <= 0
    assert row["ec1"] is None and row["level_error"] is None, "of nothing there is neither"
    assert list(measured(np.zeros_like(truth), truth, truth).described) == [None], "nor a part in the distance"


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


def test_twice_as_loud_is_six_decibels_where_there_is_sound():
    random = np.random.default_rng(0)
    noise = (random.standard_normal((60_000, 1)) * 0.1).astype(np.float32)
    assert measured(2 * noise, noise, hits([0.3], 1.4)[:60_000, :1]).row["stem_l1"] == pytest.approx(20 * np.log10(2), abs=0.01)


def test_the_range_is_eighty_decibels():
    random = np.random.default_rng(0)
    noise = (random.standard_normal((60_000, 1)) * 0.1).astype(np.float32)
    against_silence = measured(np.zeros_like(noise), noise, noise).row["stem_l1"]
    assert 50 < against_silence <= 80


def average(songs):
    """Of songs with one generation each; real stems as those of the songs."""
    real = [np.array([d for d in one.described if d is not None]).reshape(-1, 41) for one in songs]
    return averages.average([[one] for one in songs], real)


def test_what_can_not_be_measured_is_absent_with_its_reason_and_not_zero():
    silence, something = np.zeros((3 * RATE, 2), np.float32), hits(BEATS)
    nothing = measured(something, silence, something)
    assert nothing.row["onset_f1"] is None and nothing.row["mix_l1"] is not None
    full = measured(something, something, something)
    whole = average([nothing, full])
    assert whole.mean["onset_f1"] == 1.0 and "onset_f1" not in whole.absent, "a song without the stem does not count"
    assert whole.mean["mmd"] is None and whole.absent["mmd"].startswith("too few windows: it needs 8, ")
    alone = average([nothing])
    assert alone.mean["onset_f1"] is None and alone.absent["onset_f1"] == "the true stem has no onset"
    for one in (nothing, full, measured(silence, something, something), measured(silence, silence, silence)):
        missing = {name for name, value in one.row.items() if value is None} - {"mmd"}
        assert missing == set(one.absent), "every absence has its reason, and nothing else has one"
        assert all(np.isfinite(value) for value in one.row.values() if value is not None)


@pytest.mark.parametrize(
    ("name", "stem", "true", "beats", "reason"),
    [
        ("stem_l1", BEATS, [], None, "the true stem is silent"),
        ("mr_log", BEATS, [], None, "the true stem is silent"),
        ("chroma_correlation", BEATS, [], None, "the true stem is silent"),
        ("level_error", [], BEATS, None, "the stem is silent"),
        ("ec1", [], BEATS, None, "the stem is silent"),
        ("chroma", [], BEATS, None, "the stem is silent"),
        ("lock8", BEATS, BEATS, None, "the song has no steady beat"),
        ("lock8", BEATS, BEATS, Beats(120, 0.125), "the true stem does not keep to eighth notes"),
        ("f1t_beyond_chance", BEATS, [0.5, 1.1], None, measures.NO_WINDOW),
        ("density_ratio", BEATS, [], None, "the true stem is silent"),
        ("checkerboard", [], BEATS, None, "the stem is silent"),
        ("untouched", BEATS, "noise", None, "the true stem covers the whole input"),
    ],
)
def test_each_absence_says_why(name, stem, true, beats, reason):
    heard = hits([0.1, 1.1])
    noise = np.random.default_rng(0).standard_normal(heard.shape).astype(np.float32)
    one = measured(hits(stem), noise if isinstance(true, str) else hits(true), heard, beats)
    assert one.row[name] is None and one.absent[name] == reason


def test_mixes_are_measured_as_wholes_only():
    heard, drums = hits([0.1, 1.1]), hits(BEATS)
    truth = Truth(heard + drums, heard, RATE, None, Data(), mixes=True)
    one = measures.measure(heard + drums, truth)
    assert one.row["mix_l1"] == pytest.approx(0, abs=1e-4) and one.row["mr_convergence"] == pytest.approx(0, abs=1e-6)
    assert {one.absent[name] for name in ("lock8", "stem_l1", "mmd", "level_error")} == {measures.MIXES}
    assert measures.measure(heard, truth).row["untouched"] == 0


def test_intervals_hold_the_mean_and_narrow_with_agreement():
    truth = hits(BEATS)
    songs = [measured(truth * np.float32(gain), truth, truth) for gain in (1, 0.5, 0.7, 0.9)]
    whole = average(songs)
    low, high = whole.interval["stem_l1"]
    assert low < whole.mean["stem_l1"] < high and whole.interval == average(songs).interval
    low, high = average([songs[1]] * 4).interval["stem_l1"]
    assert low == pytest.approx(high)


def test_one_song_has_its_interval_from_its_windows():
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0.2, 35, 70))
    truth, made = hits(times, 36), hits(np.where(times < 18, times, times + 0.1), 36)
    one = measured(made, truth, truth)
    assert len(one.windows) == 6
    low, high = average([one]).interval["f1t"]
    assert low < one.row["f1t"] < high and averages.over_windows([one])["f1t"] == (low, high)


def test_generations_are_averaged_and_absence_is_of_all():
    truth, heard = hits(BEATS), hits([0.1, 1.1])
    loud, quiet, silent = (measured(truth * np.float32(gain), truth, heard) for gain in (1, 10**-0.5, 0))
    row, absent = averages.of_generations([loud, quiet])
    assert row["level_error"] == pytest.approx(5, abs=0.01) and "level_error" not in absent
    row, absent = averages.of_generations([quiet, silent])
    assert row["level_error"] == pytest.approx(10, abs=0.01), "what could be measured, not a 0 beside it"
    assert averages.of_generations([silent, silent])[1]["level_error"] == "the stem is silent"


def test_of_less_than_64_frames_no_checkerboard_is_told():
    short = hits([0.1], 0.5)
    one = measured(short, short, short)
    assert (
        one.row["checkerboard"] is None
        and one.absent["checkerboard"] == "shorter than 64 frames of the pictures, or silent but for their end"
    )

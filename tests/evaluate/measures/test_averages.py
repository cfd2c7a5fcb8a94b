"""How sure the means and the distance are: intervals of which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from p2p_dist.evaluate.measures import averages, descriptors
from p2p_dist.evaluate.measures.measure import MIXES, Measured
from p2p_dist.evaluate.measures.table import MEASURES

SIZE = 8  # of a description here


def song(**values: float) -> list[Measured]:
    """A song of which only these measures are known."""
    return [Measured({name: values.get(name) for name in MEASURES}, {})]


def test_the_interval_of_a_mean_is_students() -> None:
    """Of 2, 4, 4, 6, 9: mean 5, standard deviation 2.6458, t(4) = 2.7764."""
    whole = averages.average([song(stem_l1=value) for value in (2, 4, 4, 6, 9)], [np.empty((0, SIZE))] * 5)
    assert whole.mean["stem_l1"] == 5
    assert whole.interval["stem_l1"] == (pytest.approx(5 - 3.2852, abs=1e-3), pytest.approx(5 + 3.2852, abs=1e-3))
    values = [0.3, 0.5, 0.35, 0.6]
    whole = averages.average([song(ec1=value) for value in values], [np.empty((0, SIZE))] * 4)
    assert whole.interval["ec1"] == pytest.approx(stats.t.interval(0.95, 3, np.mean(values), stats.sem(values)))


def test_an_interval_ends_where_the_measure_does() -> None:
    def of(name: str, *values: float) -> tuple[float, float]:
        return averages.average([song(**{name: v}) for v in values], [np.empty((0, SIZE))] * len(values)).interval[name]

    assert of("stem_l1", 0.5, 4.0)[0] == 0 and of("stem_l1", 0.5, 4.0)[1] > 10, "of two songs little is known"
    assert of("f1t", 0.2, 0.9) == (0, 1) and of("ec1", -0.9, 0.9) == (-1, 1)
    assert of("lock8", -0.1, 0.1)[0] < -1, "which may be negative"


def test_of_the_level_the_median_over_songs_is_taken() -> None:
    """The sign test's interval of six values is from the first to the last, of nine from the second; of five there is none."""

    def of(*values: float) -> averages.Average:
        return averages.average([song(level_error=value) for value in values], [np.empty((0, SIZE))] * len(values))

    assert of(1, 2, 13.8).mean["level_error"] == 2 and of(1, 2, 3, 13.8).mean["level_error"] == 2.5
    assert of(4, 1, 3, 6, 2, 5).interval["level_error"] == (1, 6)
    assert of(9, 8, 7, 1, 2, 3, 4, 5, 6).interval["level_error"] == (2, 8)
    assert "level_error" not in of(1, 2, 3, 4, 5).interval
    generations = [song(level_error=1)[0], song(level_error=5)[0]]
    assert averages.average([generations], [np.empty((0, SIZE))]).mean["level_error"] == 3, "of generations the mean"


def test_of_one_song_without_windows_nothing_is_known() -> None:
    assert averages.average([song(stem_l1=3.0)], [np.empty((0, SIZE))]).interval == {}


def of_windows(*windows: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The intervals of one song of these windows, of which only these values are known."""
    return averages.average([[Measured(dict.fromkeys(MEASURES), {}, windows)]], [np.empty((0, SIZE))]).interval


def test_of_one_song_the_windows_tell_how_sure_it_is() -> None:
    """Not of the level, a median; nor of what only one window knows, and is unknown without it."""
    values = [0.3, 0.5, 0.35, 0.6]
    windows = [{"ec1": value, "level": 20 * value} for value in values]
    windows[1]["f1"] = 0.5
    found = of_windows(*windows)
    assert set(found) == {"ec1"}
    assert found["ec1"] == pytest.approx(stats.t.interval(0.95, 3, np.mean(values), stats.sem(values)))
    low, high = stats.t.interval(0.95, 1, 0.32, stats.sem([0.3, 0.34]))
    assert of_windows({"ec1": 0.3}, {"ec1": 0.34})["ec1"] == pytest.approx((low, high))
    assert of_windows({"ec1": 0.3}) == {}


def test_the_distance_is_the_mean_over_generations() -> None:
    made, real = draw(np.random.default_rng(5), 2, 5, 0.5)
    both = [made, made + 1]
    songs = [[Measured(dict.fromkeys(MEASURES), {}, [], list(one[n])) for one in both] for n in range(2)]
    whole = averages.average(songs, list(real))
    found = [descriptors.distance_of_songs([list(part) for part in one], list(real)) for one in both]
    (first, without), (second, others) = (one for one in found if not isinstance(one, str))
    assert whole.mean["mmd"] == pytest.approx((first + second) / 2) and abs(first - second) > 1
    expected = averages.jackknife((first + second) / 2, (np.array(without) + np.array(others)) / 2)
    assert whole.interval["mmd"] == pytest.approx(expected), "of two songs, too"


def test_generations_of_one_song_that_are_silent_in_different_windows_have_no_interval() -> None:
    made, real = draw(np.random.default_rng(6), 1, 10, 0.5)
    both = [list(made[0]), [*made[0][:9], None]]
    song = [Measured(dict.fromkeys(MEASURES), {}, [], described) for described in both]
    whole = averages.average([song], list(real))
    found = [descriptors.distance_of_songs([described], list(real)) for described in both]
    assert whole.mean["mmd"] == pytest.approx(np.mean([one[0] for one in found if not isinstance(one, str)]))
    assert "mmd" not in whole.interval and "mmd" not in whole.absent


def test_a_known_reason_of_no_distance_is_kept() -> None:
    mixes = Measured(dict.fromkeys(MEASURES), {"mmd": MIXES})
    assert averages.average([[mixes]], [np.empty((0, SIZE))]).absent["mmd"] == MIXES


def draw(random: np.random.Generator, songs: int, windows: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Descriptions of made and real stems, (songs, windows, SIZE): each song has its sound, which the made ones half meet."""
    own, other = random.standard_normal((2, songs, 1, SIZE)) * 0.5
    noise = random.standard_normal((2, songs, windows, SIZE))
    return own / 2 + other / 2 + noise[0] + shift, own + noise[1]


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("songs", [2, 6])
def test_the_interval_of_the_distance_holds_the_truth_as_often_as_it_says(shift: float, songs: int) -> None:
    """The truth is taken from a thousand songs. Quantiles of a bootstrap hold it in half of the cases of two songs."""
    random = np.random.default_rng(1)
    made, real = (part[:, 0] for part in draw(random, 1000, 1, shift))
    truth = descriptors.estimate(descriptors.kernels(made, real), np.arange(len(made)), np.arange(len(real)))
    assert truth < 1 if shift == 0 else truth > 10
    cases = 150
    held = 0
    for _ in range(cases):
        made, real = draw(random, songs, 5, shift)
        found = descriptors.distance_of_songs([list(part) for part in made], list(real))
        assert not isinstance(found, str)
        value, without = found
        low, high = averages.jackknife(value, without)
        assert len(without) == songs and low <= value <= high
        held += low <= truth <= high
    assert held / cases >= 0.90, (
        "95 % nominally; more where the truth is 0, of which the estimate scatters less than is thought"
    )


def test_the_distance_lies_inside_its_interval_and_may_be_below_zero() -> None:
    random = np.random.default_rng(2)
    below = 0
    for _ in range(20):
        made, real = draw(random, 5, 2, 0.0)
        songs = [
            [Measured(dict.fromkeys(MEASURES), {}, [], list(part)), Measured(dict.fromkeys(MEASURES), {}, [], list(part[::-1]))]
            for part in made
        ]
        whole = averages.average(songs, list(real))
        value, (low, high) = whole.mean["mmd"], whole.interval["mmd"]
        assert value is not None and low < value < high and "mmd" not in whole.absent
        below += value < 0
    assert 2 <= below <= 18


def test_of_one_song_the_distance_leaves_out_its_windows() -> None:
    made, real = draw(np.random.default_rng(3), 1, 10, 0.5)
    described: list[np.ndarray | None] = list(made[0])
    described[4] = None  # where the stem is silent
    found = descriptors.distance_of_songs([described], list(real))
    assert not isinstance(found, str)
    value, without = found
    assert len(without) == 9, "the real set is fixed"
    kernels = descriptors.kernels(made[0][[n for n in range(10) if n != 4]], real[0])
    for left_out in (0, 8):
        rows = np.array([n for n in range(9) if n != left_out]), np.arange(10)
        assert without[left_out] == pytest.approx(descriptors.estimate(kernels, *rows))
    assert value == pytest.approx(descriptors.estimate(kernels, np.arange(9), np.arange(10)))


def test_a_song_that_holds_all_windows_leaves_no_interval() -> None:
    made, real = draw(np.random.default_rng(4), 2, 9, 0.5)
    found = descriptors.distance_of_songs([list(made[0]), [made[1][0]]], [real[0], real[1][:1]])
    assert not isinstance(found, str) and found[1] == []
    assert isinstance(descriptors.distance_of_songs([[made[0][0]]], [real[0]]), str), "and too few have no distance"


def test_the_interval_of_a_median_is_that_of_the_sign_test() -> None:
    random = np.random.default_rng(0)
    for count in (1, 5, 6, 8, 9, 50, 51):
        values = random.normal(size=count).tolist()
        low, high = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
        assert averages.sign_test(values) == (None if count < 6 else (low, high)), count

"""The distance between sets of stems."""

import numpy as np
import pytest

from p2p_dist.audio.stems import mono
from p2p_dist.evaluate.measures import descriptors, onsets
from tests.evaluate.measures.measured import RATE, hits


def test_descriptors_tell_drums_from_noise():
    random = np.random.default_rng(1)
    windows = [hits(np.sort(random.uniform(0.2, 5.5, 14)), 5.9, 0.3)[:, 0] for _ in range(16)]
    noise = [(random.standard_normal(len(windows[0])) * 0.1).astype(np.float32) for _ in range(8)]
    drums, mush = (
        [descriptors.describe(onsets.mel(mono(w[:, None], RATE, onsets.RATE))) for w in part] for part in (windows, noise)
    )
    assert drums[0].shape == (41,)
    same, other = (descriptors.distance_of_songs([made], [np.array(drums[8:])])[0] for made in (drums[:8], mush))
    assert abs(same) < 60 < other
    assert isinstance(descriptors.distance_of_songs([drums[:1]], [np.array(drums)]), str)


def test_it_says_what_it_compares_and_from_which_size_on_it_counts():
    about = {"songs": 7, "windows": 200, "real": 225, "others": 38.204}
    assert descriptors.is_certain(about) and not descriptors.is_certain({**about, "windows": 199})
    assert descriptors.in_words(about) == (
        "The distance compares 200 windows of the stems with the 225 windows of the whole true stems of the same 7 songs; the "
        "true stems of one half of these songs are at 38.20 from those of the other half."
    )
    earlier = descriptors.in_words({"songs": 7, "windows": 200, "real": 225, "floor": -2.004})
    assert "true stems in those 200 windows are at -2.00, which is some points too low" in earlier
    few = descriptors.in_words({"songs": 1, "windows": 1, "real": 11, "others": None})
    assert few.startswith(
        "The distance compares 1 window of the stems with the 11 windows of the whole true stems of the same 1 song."
    )
    assert "fewer than 200 windows it is uncertain" in few and "does not count in the score" in few
    assert not descriptors.is_certain(None) and "measured by an earlier version" in descriptors.in_words(None)


def test_how_far_true_stems_of_other_songs_are_is_free_of_windows_that_are_in_both_sets():
    random = np.random.default_rng(2)
    alike = [random.standard_normal((40, 41)) for _ in range(4)]
    about = descriptors.about_songs([one[:12] for one in alike], alike)
    assert (about["songs"], about["windows"], about["real"]) == (4, 48, 160)
    near, _ = descriptors.distance_of_songs([list(one[:12]) for one in alike], alike)
    assert near < -1.5, "windows that are compared with themselves"
    assert abs(about["others"]) < 0.8, "of one distribution: 0"
    unlike = [one + 3 * random.standard_normal(41) for one in alike]
    assert descriptors.about_songs(unlike, unlike)["others"] > 15
    halves = [descriptors.kernels(np.concatenate(unlike[:3]), np.concatenate(unlike[:3]))]
    expected = [
        descriptors.estimate(halves[0], np.arange(40) + 40 * song, np.setdiff1d(np.arange(120), np.arange(40) + 40 * song))
        for song in range(3)
    ]
    assert descriptors.about_songs(unlike[:3], unlike[:3])["others"] == pytest.approx(np.mean(expected)), "one against two"
    some = [unlike[0], unlike[1][:7], unlike[2][:0]]
    assert descriptors.about_songs(some, unlike[:3])["others"] == pytest.approx(expected[0]), "not halves of less than 8"
    for none in ([unlike[0]], [unlike[0][:0], unlike[1][:0]]):
        assert descriptors.about_songs(none, unlike[: len(none)])["others"] is None
    assert descriptors.about_songs([alike[0][:0]] * 2, [alike[0][:0]] * 2)["others"] is None


def test_a_window_is_described_by_the_figures_that_the_distance_is_known_for():
    """If it failed: distances that cannot be compared with those of earlier evaluations, and no test that says so."""
    level = np.repeat([0.0, -17.0, -29.0, -40.0], 64)  # dB under the loudest frame, each in a quarter of the window
    power = np.tile(10 ** (level / 10), (64, 1))
    assert descriptors.describe(power)[-3:] == pytest.approx([5, 15, -21.5])
    power = np.full((64, 256), 1e-12)
    power[:, [20, 100]] = 1.0  # onsets 80 frames apart, the last of the lags
    rhythm = descriptors.describe(power)[-16:-3]
    assert rhythm.argmax() == 12 and rhythm[12] > 9 and rhythm[:12].max() < 0


def test_the_kernel_of_windows_is_the_one_that_is_described():
    real, made = np.zeros((8, descriptors.SIZE)), np.full((8, descriptors.SIZE), 0.3)
    expected = sum(np.exp(-1 / scale) for scale in (0.5, 1, 2, 4))
    *_, between = descriptors.kernels(made, real)
    assert between == pytest.approx(np.full((8, 8), expected)), "by the spread of the real ones + 0.3"

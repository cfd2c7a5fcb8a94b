"""The distance between sets of stems."""

import numpy as np

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
    about = {"songs": 7, "windows": 200, "real": 225, "floor": -2.004}
    assert descriptors.is_certain(about) and not descriptors.is_certain({**about, "windows": 199})
    assert descriptors.in_words(about) == (
        "The distance compares 200 windows of the stems with the 225 windows of the whole true stems of the same 7 songs; the "
        "true stems in those 200 windows are at -2.00."
    )
    few = descriptors.in_words({"songs": 1, "windows": 1, "real": 11, "floor": None})
    assert few.startswith(
        "The distance compares 1 window of the stems with the 11 windows of the whole true stems of the same 1 song."
    )
    assert "fewer than 200 windows it is uncertain" in few and "does not count in the score" in few
    assert not descriptors.is_certain(None) and "measured by an earlier version" in descriptors.in_words(None)


def test_true_stems_have_a_floor_that_depends_on_which_songs_are_measured():
    """Of all windows it is under 0: each is among those that it is compared with. Of one song of three it is far."""
    random = np.random.default_rng(2)
    songs = [random.standard_normal((40, 41)) + 3 * random.standard_normal(41) for _ in range(3)]
    about = descriptors.about_songs(songs, songs)
    assert (about["songs"], about["windows"], about["real"]) == (3, 120, 120)
    assert -5 < about["floor"] < 0
    one = descriptors.about_songs([songs[0], songs[1][:0], songs[2][:0]], songs)
    assert (one["windows"], one["real"]) == (40, 120) and one["floor"] > 15
    assert descriptors.about_songs([songs[0][:7]], [songs[0]])["floor"] is None

"""What a stem is measured against."""

import numpy as np

from p2p_dist.audio.stems import mono
from p2p_dist.evaluate.measures import onsets
from p2p_dist.evaluate.measures.truth import Truth, onset_times, real_windows
from p2p_dist.settings.config import Data
from tests.evaluate.measures.measured import BEATS, RATE, hits


def test_onsets_are_found_where_they_are():
    found = onset_times(mono(hits(BEATS), RATE, onsets.RATE))
    assert len(found) == len(BEATS)
    # Not 46 ms late, as frames come when a spectrogram is taken with other settings than are assumed.
    assert np.abs(found - BEATS).max() < 0.024


def test_the_real_set_of_a_whole_song_is_of_its_counted_windows():
    """Twelve seconds of hits, then six of silence, which do not count."""
    true = np.concatenate([hits(np.arange(0.2, 11.5, 0.3), 12.0), hits([], 6.0)])
    heard = hits([0.1, 8.0], 18.0)
    found = real_windows(true, heard, RATE)
    assert found.shape == (2, 41) and np.array_equal(found, Truth(true, heard, RATE, None, Data()).real)
    assert real_windows(hits([], 6.0), heard, RATE).shape == (0, 41)


def test_a_window_counts_with_four_onsets_and_where_the_input_is_heard():
    heard = hits([0.1, 3.0], 6.0)
    assert [len(real_windows(hits(times, 6.0), heard, RATE)) for times in ([1, 2, 3], [1, 2, 3, 4])] == [0, 1]
    assert len(real_windows(hits([1, 2, 3, 4], 6.0), np.zeros_like(heard), RATE)) == 0

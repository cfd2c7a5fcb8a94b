"""What a stem is measured against."""

import numpy as np

from p2p_dist.audio.stems import mono
from p2p_dist.evaluate.measures import onsets
from p2p_dist.evaluate.measures.truth import onset_times
from tests.evaluate.measures.measured import BEATS, RATE, hits


def test_onsets_are_found_where_they_are():
    found = onset_times(mono(hits(BEATS), RATE, onsets.RATE))
    assert len(found) == len(BEATS)
    # Not 46 ms late, as frames come when a spectrogram is taken with other settings than are assumed.
    assert np.abs(found - BEATS).max() < 0.024

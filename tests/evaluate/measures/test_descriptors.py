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

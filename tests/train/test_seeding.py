"""Random numbers follow from seed and place."""

from __future__ import annotations

import numpy as np
import torch

from p2p_dist.train import seeding


def test_noise_belongs_to_seed_and_place():
    def draw(places, seed=0):
        return seeding.noise_at(np.array(places), seed, (1, 8, 16), torch.device("cpu"))

    assert draw([3, 4, 5]).shape == (3, 1, 8, 16)
    assert torch.equal(draw([3, 4, 5])[1], draw([4])[0])
    assert not torch.equal(draw([3])[0], draw([4])[0])
    assert not torch.equal(draw([3])[0], draw([3], seed=1)[0])
    many = draw(range(200))
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03
    assert seeding.noise_at(np.array([3]), 0, (0, 8, 16), torch.device("cpu")) is None
    assert seeding.number_from("a", 1) == seeding.number_from("a", 1) != seeding.number_from("a", 11)
    assert 0 <= seeding.number_from("a") < 2**63

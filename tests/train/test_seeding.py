"""Random numbers follow from seed and place."""

from __future__ import annotations

import threading
import types

import numpy as np
import torch

from p2p_dist.train import seeding


def test_noise_belongs_to_seed_and_place():
    def draw(positions, seed=0):
        return seeding.noise_at(np.array(positions), seed, (1, 8, 16))

    assert draw([3, 4, 5]).shape == (3, 1, 8, 16)
    assert torch.equal(draw([3, 4, 5])[1], draw([4])[0])
    assert not torch.equal(draw([3])[0], draw([4])[0])
    assert not torch.equal(draw([3])[0], draw([3], seed=1)[0])
    many = draw(range(200))
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03
    assert seeding.number_from("a", 1) == seeding.number_from("a", 1) != seeding.number_from("a", 11)
    assert 0 <= seeding.number_from("a") < 2**63


def test_the_noise_of_the_next_batch_is_drawn_while_the_caller_works(monkeypatch):
    """And is that of its step, in whatever order steps are asked for."""
    stream = types.SimpleNamespace(positions=lambda step: np.arange(3) + 6 * step, device=torch.device("cpu"))
    honest, drawn = seeding.noise_at, {}

    def noise_at(positions, *arguments):
        assert threading.current_thread() is not threading.main_thread()
        noise = honest(positions, *arguments)
        drawn.setdefault(int(positions[0]) // 6, threading.Event()).set()
        return noise

    monkeypatch.setattr(seeding, "noise_at", noise_at)
    drawn[5] = threading.Event()
    noises = seeding.Noise(stream, 7, (2, 8, 16))
    kept = {step: noises.batch(step) for step in (0, 1, 9, 1, 2, 4)}
    assert drawn[5].wait(20), "the noise of step 5 was not asked for"
    for step, noise in kept.items():
        assert torch.equal(noise, honest(stream.positions(step), 7, (2, 8, 16)))
    assert seeding.Noise(stream, 7, (0, 8, 16)).batch(0) is None

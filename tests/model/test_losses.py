"""Each loss against its formula, written out."""

from __future__ import annotations

import math

import pytest
import torch

from p2p_dist.model import losses


def test_hinge():
    real, generated = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.5])
    assert losses.discriminator_loss(real, generated, "hinge").item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.5) / 2)
    assert losses.adversarial_loss(generated, "hinge").item() == pytest.approx(0.75)


def test_bce_is_not_halved():
    def softplus(x):
        return math.log1p(math.exp(x))

    real, generated = torch.tensor([2.0, -1.0]), torch.tensor([0.5])
    wanted = (softplus(-2) + softplus(1)) / 2 + softplus(0.5)
    assert losses.discriminator_loss(real, generated, "bce").item() == pytest.approx(wanted, rel=1e-6)
    assert losses.adversarial_loss(generated, "bce").item() == pytest.approx(softplus(-0.5), rel=1e-6)


def test_difference_ignores_level_and_sees_blurred_onsets():
    target = torch.zeros(1, 1, 2, 8)
    target[..., 4] = 1.0
    assert losses.difference_loss(target + 0.3, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.difference_loss(torch.zeros_like(target), target).item() == pytest.approx(2 / 7)


def test_compressed_is_the_squared_error_of_compressed_magnitudes():
    output, target = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 0.0, 1.0])
    assert losses.compressed_loss(output, target).item() == pytest.approx((0.9**2 + 0 + 0.99**2) / 3)


def clicks(*frames, mels=slice(None), low=-1.0, high=0.5):
    """A picture (1, 1, 6, 16) that rises at these frames, for one frame."""
    picture = torch.full((1, 1, 6, 16), low)
    picture[..., mels, list(frames)] = high
    return picture


def test_flux_is_one_minus_the_correlation_of_rises():
    target = clicks(3, 9)
    assert losses.flux_loss(target, target).item() == pytest.approx(0, abs=1e-3)
    assert losses.flux_loss(target - 0.2, target).item() == pytest.approx(0, abs=1e-3), "all of it quieter"
    # Two rises in 15 differences, at other places: correlation -2 / 13.
    assert losses.flux_loss(clicks(5, 12), target).item() == pytest.approx(1 + 2 / 13, abs=1e-3)
    assert losses.flux_loss(clicks(3, 12), target).item() == pytest.approx(1 - (1 - 4 / 15) / (2 - 4 / 15), abs=1e-3)
    # One third is right, two do not rise, and all together rise at the right times.
    assert losses.flux_loss(clicks(3, 9, mels=slice(0, 2)), target).item() == pytest.approx(2 / 4, abs=1e-3)


def test_flux_hears_nothing_far_below_the_target():
    target = clicks(3, 9)
    noise = torch.where(clicks(2, 6, 11, low=0.0, high=1.0) > 0, 0.5 - losses.HEARD, -1.0)
    assert losses.flux_loss(torch.maximum(target, noise), target).item() == pytest.approx(0, abs=1e-3)
    assert losses.flux_loss(torch.maximum(target, noise + 0.3), target).item() > 0.01


def test_flux_of_a_silent_target_pulls_at_nothing():
    output = torch.rand(2, 1, 6, 16, requires_grad=True)
    loss = losses.flux_loss(output, torch.full((2, 1, 6, 16), -1.0))
    loss.backward()
    assert loss.item() == pytest.approx(1) and not output.grad.any()


def test_features_leave_out_the_logits_and_the_real_side():
    generated = [torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([2.0]), torch.tensor([100.0])]
    real = [torch.tensor([0.0, 0.0], requires_grad=True), torch.tensor([5.0]), torch.tensor([0.0])]
    loss = losses.feature_loss(generated, real)
    assert loss.item() == pytest.approx((2 + 3) / 2)
    loss.backward()
    assert real[0].grad is None and generated[0].grad is not None

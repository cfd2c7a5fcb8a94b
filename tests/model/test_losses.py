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


def test_features_leave_out_the_logits_and_the_real_side():
    generated = [torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([2.0]), torch.tensor([100.0])]
    real = [torch.tensor([0.0, 0.0], requires_grad=True), torch.tensor([5.0]), torch.tensor([0.0])]
    loss = losses.feature_loss(generated, real)
    assert loss.item() == pytest.approx((2 + 3) / 2)
    loss.backward()
    assert real[0].grad is None and generated[0].grad is not None

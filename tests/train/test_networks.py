"""What a step changes."""

from __future__ import annotations

import pytest
import torch

from p2p_dist.train import networks, step
from tests.train import on_ranks
from tests.train.small import small


def test_moving_average():
    config = small(ema=0.9, ema_warmup=False)
    built = networks.build(config, on_ranks.CPU)
    before = {name: tensor.clone() for name, tensor in built.average.items()}
    step.train_step(built, *on_ranks.batch_of(config, 2), config.train, 1)
    for name, parameter in built.generator.named_parameters():
        torch.testing.assert_close(built.average[name], before[name] + 0.1 * (parameter - before[name]))
    assert set(built.to_evaluate()) == set(built.generator.state_dict())


def test_moving_average_warms_up():
    """At first it follows the weights: the decays of three updates are 2/11, 3/12 and, by --train.ema, 0.3."""
    config = small(ema=0.3)
    built = networks.build(config, on_ranks.CPU)
    for number, decay in enumerate((2 / 11, 3 / 12, 0.3), 1):
        before = {name: tensor.clone() for name, tensor in built.average.items()}
        step.train_step(built, *on_ranks.batch_of(config, 2), config.train, number)
        for name, parameter in built.generator.named_parameters():
            torch.testing.assert_close(built.average[name], decay * before[name] + (1 - decay) * parameter)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_update_is_adam(layout):
    """torch's plain Adam, whatever the order in memory of weights and gradients; a mixture of orders is refused."""
    order = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    module = torch.nn.Conv2d(4, 6, 3).to(memory_format=order[layout])
    plain = torch.nn.Conv2d(4, 6, 3)
    plain.load_state_dict(module.state_dict())
    config = small()
    ours, theirs = networks.new_adam(module, config.train), torch.optim.Adam(plain.parameters(), lr=2e-4, betas=(0.5, 0.999))
    for _ in range(3):
        for mine, other in zip(module.parameters(), plain.parameters(), strict=True):
            other.grad = torch.randn(other.shape)
            mine.grad = other.grad.clone(memory_format=torch.preserve_format)
        module.weight.grad = module.weight.grad.contiguous(memory_format=order[layout])
        bad, norm = networks.update(module, ours, torch.zeros(()))
        theirs.step()
        assert not bad
        whole = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()]).norm()
        assert norm.item() == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(module.weight, plain.weight, rtol=1e-6, atol=1e-7)
    moments = networks.moments_of(module, ours)
    torch.testing.assert_close(moments["weight"]["exp_avg"], theirs.state[plain.weight]["exp_avg"])
    assert moments["weight"]["exp_avg"].stride() == module.weight.stride()
    other = order["contiguous" if layout == "channels_last" else "channels_last"]
    module.weight.grad = module.weight.grad.contiguous(memory_format=other)
    with pytest.raises(AssertionError, match="memory layouts differ"):
        networks.update(module, ours, torch.zeros(()))


@pytest.mark.parametrize("flagged", [("cpu",), ()], ids=["on the device", "by the host"])
def test_a_step_that_is_not_finite_changes_nothing(flagged, monkeypatch):
    monkeypatch.setattr(networks, "FLAGGED", flagged)
    module = torch.nn.Conv2d(4, 6, 3)
    optimiser = networks.new_adam(module, small().train)
    weights = [module.weight.detach().clone()]
    for value in (0.1, float("nan"), 0.1):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, value)
        bad, _ = networks.update(module, optimiser, torch.tensor(float(len(weights) > 2)))
        assert bool(bad) == (len(weights) > 1)
        weights.append(module.weight.detach().clone())
    assert not torch.equal(weights[0], weights[1]), "a finite step"
    assert torch.equal(weights[1], weights[2]) and torch.equal(weights[2], weights[3]), "not finite, and all after it"

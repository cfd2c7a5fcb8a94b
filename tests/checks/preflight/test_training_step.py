"""One real training step finds what a torch does not have, and names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import p2p_dist
from p2p_dist.checks.preflight import ranks, training_step
from p2p_dist.train import distributed

ALONE = distributed.Ranks(0, 1, 0, torch.device("cpu"), None)


def test_this_torch_can_do_it():
    found = ranks.check_step([ALONE])
    assert (found.state, found.found) == (ranks.OK, "one update of both networks on cpu in fp32")
    assert ranks.check_step([]).state == ranks.NONE


class NoFusedAdam(torch.optim.Adam):
    def __init__(self, parameters, lr, betas, eps):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps)


@pytest.mark.parametrize(
    ("place", "replacement", "told"),
    [
        ("torch.nn.functional.conv_transpose2d", None, "conv_transpose2d"),
        ("torch.optim.Adam", NoFusedAdam, "unexpected keyword argument 'fused'"),
        ("p2p_dist.model.discriminator.spectral_norm", None, "spectral_norm"),
    ],
)
def test_what_is_missing_is_told(monkeypatch, place, replacement, told):
    if replacement is None:
        monkeypatch.delattr(place)
    else:
        monkeypatch.setattr(place, replacement)
    found = ranks.check_step([ALONE])
    assert found.state == ranks.FAILED and told in found.found and "torch 2.9" in found.todo


def test_an_update_that_changes_nothing_is_told(monkeypatch):
    monkeypatch.setattr(training_step, "train_step", lambda *_: ({}, torch.zeros(2)))
    with pytest.raises(ValueError, match="generator did not change"):
        training_step.one_step(ALONE)
    monkeypatch.setattr(training_step, "train_step", lambda *_: ({"l1": torch.tensor(float("nan"))}, torch.zeros(2)))
    with pytest.raises(ValueError, match=r"not finite.*l1"):
        training_step.one_step(ALONE)


def test_gradients_are_compared_with_those_of_the_processor():
    """Those in bf16, too, are near enough."""
    assert training_step.compared(ALONE) == "relative error of its gradients, compared with the CPU: 0"
    true, found = (training_step.gradients(ALONE, precision) for precision in ("fp32", "bf16"))
    for name in true:
        assert 0.01 < (found[name] - true[name]).norm() / true[name].norm() < training_step.APART / 2


POOL = torch.nn.functional.avg_pool2d


class PoolWithoutPadding(torch.autograd.Function):
    """Pooling of 3x3 weights as torch's CUDA kernel does it in channels_last: its backward leaves out the padding."""

    @staticmethod
    def forward(context, weights):
        return POOL(weights, 2, 1, padding=1, divisor_override=1)

    @staticmethod
    def backward(context, gradient):
        found = gradient.new_zeros(*gradient.shape[:2], 3, 3)
        reached = [range(max(0, place - 1), place + 1) for place in range(3)]
        for h in range(3):
            for w in range(3):
                found[:, :, h, w] = sum(gradient[:, :, a, b] for a in reached[h] for b in reached[w])
        return found


def test_a_kernel_with_wrong_gradients_is_told(monkeypatch):
    honest, calls = training_step.gradients, []

    def gradients(*arguments):
        calls.append(arguments)
        with monkeypatch.context() as patch:
            if len(calls) == 1:  # on the GPU, so to say
                patch.setattr(torch.nn.functional, "avg_pool2d", lambda weights, *_, **__: PoolWithoutPadding.apply(weights))
            return honest(*arguments)

    monkeypatch.setattr(training_step, "gradients", gradients)
    with pytest.raises(ValueError, match=r"gradients of the generator on cpu have a relative error of 0\.4"):
        training_step.compared(ALONE)


def test_newer_and_deprecated_names_stand_in_one_place():
    """What torch 2.9 calls otherwise than 2.13 is chosen where DDP is made, and nowhere else."""
    found = [
        path.name
        for path in Path(p2p_dist.__file__).parent.rglob("*.py")
        if re.search(r"forward_sync_buffers|broadcast_buffers", path.read_text())
    ]
    assert found == ["distributed.py"]

"""The discriminator."""

from __future__ import annotations

import torch

from p2p_dist.model.discriminator import Discriminator
from tests.model.small import TINY


def test_power_iteration_in_full_precision(monkeypatch):
    """Outside of bf16 autocast, which rounds it on GPUs (on a CPU it does not, so the values alone would not tell)."""
    torch.manual_seed(0)
    plain, rounded = (Discriminator(TINY) for _ in range(2))
    rounded.load_state_dict(plain.state_dict())
    pictures = torch.randn(2, 2, 1, 32, 32)
    full = plain(*pictures)
    honest, seen = torch.mv, []
    monkeypatch.setattr(torch, "mv", lambda *a, **k: (seen.append(torch.is_autocast_enabled("cpu")), honest(*a, **k))[1])
    with torch.autocast("cpu", torch.bfloat16):
        half = rounded(*pictures)
    assert seen and not any(seen)
    for (name, wanted), found in zip(plain.named_buffers(), rounded.buffers(), strict=True):
        assert torch.equal(wanted, found), name
    assert half[-1].dtype == torch.float32 and half[0].dtype == torch.bfloat16
    torch.testing.assert_close(half[-1], full[-1], rtol=0.1, atol=0.01)

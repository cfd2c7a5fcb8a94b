"""The numbers of a line: operations, peak, images, memory."""

from __future__ import annotations

import doctest

import pytest
import torch

from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import networks, speed


@pytest.mark.parametrize("module", [speed, networks])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_operations_of_the_thesis():
    """Equal to the count by hand from the layers' sizes: 3 x 11.895 (generator) + 8 x 6.260 (discriminator) GFLOP, less the
    gradients of the two networks' own inputs, which nothing needs."""
    assert speed.flops_per_image(PRESETS["thesis"]) == 85_597_880_320


def test_operations_of_every_preset():
    counts = {name: speed.flops_per_image(preset) for name, preset in PRESETS.items()}
    assert counts["tiny"] < counts["demo"] < counts["small"] < counts["default"] < counts["thesis"]


def test_operations_do_not_depend_on_how_they_are_done():
    import dataclasses

    tiny = PRESETS["tiny"]
    changed = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, micro_batch_size=1, precision="bf16"))
    assert speed.flops_per_image(changed) == speed.flops_per_image(tiny)


def test_peaks():
    assert speed.peak("NVIDIA H200", "bf16") == 989.4e12
    assert speed.peak("NVIDIA H100 80GB HBM3", "fp32") == 494.7e12
    assert speed.peak("NVIDIA A100-SXM4-40GB", "bf16") == 312e12
    assert speed.peak("AMD Instinct MI250X", "bf16") == 191.5e12
    assert speed.peak("Some other device", "bf16") is None


def test_a_stretch_of_steps(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: clock[0])
    meter = speed.Speed(PRESETS["tiny"], "fp32", torch.device("cpu"), 2, step=10)
    meter.waited += 0.5
    clock[0] += 2.0
    row = meter.numbers(step=15)
    assert row["images_per_second"] == 5 * 4 / 2
    assert row["data_wait"] == 0.25
    assert row["flops_per_second"] == 10 * speed.flops_per_image(PRESETS["tiny"])
    assert row["memory"] > 1e6
    assert "peak_share" not in row, "no share of a peak that is not known"
    clock[0] += 1.0
    assert meter.numbers(step=16)["data_wait"] == 0, "each stretch by itself"
    words = speed.in_words({**row, "l1": 0.1})
    assert words.startswith("l1 0.1000, 10 images/s, data wait 25 %, 0.654 GFLOP/s, ")

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
    with meter.data_wait.batch():
        clock[0] += 0.5
    meter.data_wait.step_given()
    clock[0] += 1.5
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


def test_a_wait_of_the_host_counts_only_while_the_gpu_has_nothing_to_do(monkeypatch):
    """Of a GPU that does not exist only the clock is there: when it will have done what it was given so far."""
    host, gpu = [0.0], [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            self.at = gpu[0] = max(gpu[0], host[0])

        def query(self):
            return host[0] >= self.at

        def elapsed_time(self, end):
            assert end.query(), "CUDA raises an error"
            return 1000 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(speed.time, "monotonic", lambda: host[0])
    wait = speed.DataWait(torch.device("cuda"))

    def step(reading, copying=0.0):
        with wait.batch():
            host[0] += reading
            gpu[0] = max(gpu[0], host[0]) + copying
        gpu[0] += 2.0
        wait.step_given()
        return wait.take()

    assert step(1.0) == 1.0, "before the first step the GPU has nothing to do"
    assert step(0.5) == 0.0, "it computes the first step until 3"
    assert (host[0], gpu[0]) == (1.5, 5.0)
    assert step(5.0) == 1.5, "it has nothing to do from 5 on"
    host[0] = 20.0
    assert step(0.25) == 0.25, "before that the host had other work than to wait"
    assert step(3.0, copying=0.5) == 0.0, "not known yet"
    host[0] += 0.5
    assert wait.take() == 1.5, "from 22.25 to 23.75"
    assert wait.take() == 0.0
    for _ in range(9):
        with wait.batch():
            host[0] += 9.0
        wait.step_given()
    assert not wait._unknown, "ranks that write no metrics never ask, and don't collect events without end"

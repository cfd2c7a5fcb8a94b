"""Measure the speed of a training, and its fraction of the device's peak."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import cached_property

import torch
from torch.utils.flop_counter import FlopCounterMode

from p2p_dist.model.discriminator import Discriminator
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Config
from p2p_dist.train.networks import Networks
from p2p_dist.train.step import Share, discriminator_backward, generator_backward

PEAKS = {
    "MI250X": {"bf16": 191.5e12, "fp32": 47.9e12},
    "A100": {"bf16": 312e12, "fp32": 156e12},
    "H100 PCIe": {"bf16": 756e12, "fp32": 378e12},
    "H100": {"bf16": 989.4e12, "fp32": 494.7e12},
    "H200": {"bf16": 989.4e12, "fp32": 494.7e12},
}
"""Peak FLOP/s of dense matrix multiplication, by substring of the device name, from the vendor's data sheet.

MI250X: of one of its two dies (GCDs), which torch sees as one device. fp32 on NVIDIA: TF32, torch's default for convolutions.
"""


def peak(device_name: str, precision: str) -> float | None:
    """Return the device's peak in FLOP/s, or None if it is not known, as for CPUs.

    >>> peak("NVIDIA H100 PCIe", "bf16"), peak("AMD Instinct MI250X", "fp32")
    (756000000000000.0, 47900000000000.0)
    """
    return next((flops[precision] for name, flops in PEAKS.items() if name in device_name), None)


def flops_per_image(config: Config) -> int:
    """Return the floating-point operations of one update per pair, counted with the real networks on the meta device.

    A forward that is repeated to save memory (`train.micro_batch_size`) is counted once.
    """
    with torch.device("meta"):
        pictures = config.data.picture_channels
        generator, discriminator = Generator(config.model, pictures), Discriminator(config.model, pictures)
        picture = torch.zeros(1, pictures, config.data.mels, config.data.frames)
        channels = config.model.noise_channels
        noise = torch.zeros(1, channels, config.data.mels, config.data.frames) if channels else None
        guided = config.model.guide_channels(pictures)
        guide = torch.zeros(1, guided, config.data.mels, config.data.frames) if guided else None
    networks = Networks.bare(generator, discriminator)
    share = Share(picture, picture, noise, guide)
    with FlopCounterMode(display=False) as counter:
        output = generator(picture, noise, guide)
        discriminator_backward(networks, share, output, config.train.adversarial_loss, 1.0)
        discriminator.requires_grad_(False)
        generator_backward(networks, share, output, config.train, 1.0)
    return int(counter.get_total_flops())


class DataWait:
    """Measures how long the device had nothing to do because the next batch was not there.

    On a CPU that is how long the host waited for batches. A GPU still computes the step before when the host asks for the next
    batch, so a wait of the host costs nothing by itself. What counts there is the GPU's own time from the end of a step until
    the next batch was there, but no more than the host waited, because the host has other work between two steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._seconds = device, 0.0
        self._ended: torch.cuda.Event | None = None
        self._unknown: deque[tuple[float, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Everything that waits for a batch is done in this block."""
        begun = time.monotonic()
        yield
        waited = time.monotonic() - begun
        if self._ended is None:  # a CPU, or a GPU that has no step to compute
            self._seconds += waited
        else:
            self._unknown.append((waited, self._ended, self._now()))

    def step_given(self) -> None:
        """The device has been given the step of the last batch."""
        if self._device.type == "cuda":
            self._ended = self._now()
            self._settle()  # here, because not all ranks call `take`

    def take(self) -> float:
        """Return the seconds waited since the last call. Batches that have not reached the GPU yet count in the next call."""
        self._settle()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _settle(self) -> None:
        """Add the waits for all batches that have reached the GPU, without synchronising with it."""
        while self._unknown and self._unknown[0][2].query():
            waited, ended, arrived = self._unknown.popleft()
            self._seconds += min(waited, ended.elapsed_time(arrived) / 1000)  # from ms


class Speed:
    """Measures the speed of the steps between two lines of metrics.jsonl.

    Args:
        step: the last step before the training starts or resumes.
    """

    def __init__(self, config: Config, precision: str, device: torch.device, world_size: int, step: int) -> None:
        self.config, self.device = config, device
        one = peak(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
        self.peak = one * world_size if one is not None else None
        self.since, self.step, self.data_wait = time.monotonic(), step, DataWait(device)

    @cached_property
    def flops_per_image(self) -> int:
        """FLOPs per image, computed when rank 0 writes the first line."""
        return flops_per_image(self.config)

    def numbers(self, step: int) -> dict[str, float]:
        """Return the values for the steps since the last call: images per second, fraction of the time in which this rank's
        device waited for data, FLOP/s of all devices, the fraction of their peak if it is known, and peak memory in bytes."""
        now = time.monotonic()
        seconds = max(now - self.since, 1e-9)
        images = (step - self.step) * self.config.train.global_batch_size / seconds
        row = {
            "images_per_second": images,
            "data_wait": self.data_wait.take() / seconds,
            "flops_per_second": images * self.flops_per_image,
        }
        if self.peak is not None:
            row["peak_share"] = row["flops_per_second"] / self.peak
        if self.device.type == "cuda":
            row["memory"] = float(torch.cuda.max_memory_allocated(self.device))
        else:
            unit = 1.0 if sys.platform == "darwin" else 1024.0  # getrusage(2): bytes or KiB
            row["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        self.since, self.step = now, step
        return row


def in_words(row: dict[str, float]) -> str:
    """Format the numbers as a line of the log.

    >>> in_words({"l1": 0.05, "images_per_second": 540.2, "data_wait": 0.004, "flops_per_second": 46.2e12,
    ...           "peak_share": 0.241, "memory": 12.3e9})
    'l1 0.0500, 540 images/s, data wait 0 %, 46.2 TFLOP/s (24 % of peak), 12.3 GB'
    """
    flops = row["flops_per_second"]
    speed = f"{flops / 1e12:.3g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP/s"
    if "peak_share" in row:
        speed += f" ({row['peak_share']:.0%} of peak)".replace("%", " %")
    return (
        f"l1 {row['l1']:.4f}, {row['images_per_second']:.3g} images/s, data wait {100 * row['data_wait']:.0f} %, {speed}, "
        f"{row['memory'] / 1e9:.3g} GB" + (f", GPUs {row['gpu_busy']:.0%} busy".replace("%", " %") if "gpu_busy" in row else "")
    )

"""Part 3: how fast is it, beside a plainly written Pix2Pix and beside what the card can do."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import train_step as plain_program
from torch.profiler import ProfilerActivity, profile

from gpu_parts import common, counted
from gpu_parts.common import Measurement, Place, Row, arithmetic, batch_of, build, config_of, seconds_of, spread
from gpu_parts.right import compile_quickly, pairs_on_disk
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.data.stream import Stream
from p2p_dist.train import nonfinite
from p2p_dist.train.capture import Captured, step_of
from p2p_dist.train.seeding import Noise
from p2p_dist.train.speed import DataWait

LAST = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclasses.dataclass(frozen=True)
class Way:
    """How a step is made. plain: by the plainly written program. chosen: cuDNN times its algorithms and takes the fastest."""

    name: str
    precision: str = "fp32"
    tf32: bool = True
    layout: str = "contiguous"
    how: str = "eager"
    chosen: bool = False
    plain: bool = False


OURS = (
    Way("bf16, channels_last", "bf16", layout="channels_last"),
    Way("bf16, channels_last, algorithms chosen", "bf16", layout="channels_last", chosen=True),
    Way("bf16, channels_last, chosen, captured", "bf16", layout="channels_last", how="captured", chosen=True),
    Way("tf32", "fp32"),
    Way("bf16", "bf16"),
    Way("fp32", "fp32", tf32=False),
    Way("tf32, channels_last, chosen", "fp32", layout="channels_last", chosen=True),
    Way("tf32, chosen, captured", "fp32", how="captured", chosen=True),
    Way("bf16, chosen, captured", "bf16", how="captured", chosen=True),
)
COMPILED = (
    Way("bf16, channels_last, chosen, compiled", "bf16", layout="channels_last", how="compiled", chosen=True),
    Way("bf16, channels_last, chosen, compiled, captured", "bf16", layout="channels_last", how="both", chosen=True),
)
PLAIN = (
    Way("plain, bf16, channels_last, chosen, fused Adam", "bf16", layout="channels_last", chosen=True, plain=True),
    Way(
        "plain, bf16, channels_last, chosen, compiled", "bf16", layout="channels_last", how="compiled", chosen=True, plain=True
    ),
    Way("plain, as torch is", "fp32", plain=True),
)


def measurements(place: Place) -> list[Measurement]:
    batches = (2, 1) if place.small else (64, 1, 16, 128)

    def speed(network: str, way: Way, sizes: tuple[int, ...] = batches) -> Measurement:
        name = f"{network}: {way.name}"
        slow = way.how in ("compiled", "both")
        skipped = "a CPU has no graphs" if place.small and way.how in ("captured", "both") else ""
        title = "Speed" + (" (networks of test size)" if place.small else "")
        limit = (150 if slow else 60) if not place.small else 30
        least = (40 if slow else 15) if not place.small else 6
        return Measurement(name, lambda: rates(place, network, way, sizes), title, limit, "speed", least, skipped)

    if place.small:
        return [
            Measurement("the card", lambda: ceilings(place), "What the device can do, measured now", 20),
            speed("thesis", OURS[5]),
            speed("plain", OURS[0]),
            speed("plain", COMPILED[0], (2,)),
            Measurement("data", lambda: data_wait(place), "What reading the batches costs", 30),
            Measurement("counted", lambda: in_theory(place), "Counted on meta tensors, float32", 60),
            speed("thesis", PLAIN[2], (1,)),
            Measurement("trace", lambda: trace(place), "Where the time is", 45, skipped="a CPU has no kernels to trace"),
            Measurement("operations", lambda: operations(place), "Operations that are no convolution, dearest first", 45),
        ]
    some = batches[:2]
    found = [Measurement("the card", lambda: ceilings(place), "What the device can do, measured now", 30)]
    found += [Measurement("data", lambda: data_wait(place), "What reading the batches costs, step captured", 60, least=10)]
    found += [speed("thesis", OURS[2], some), speed("thesis", PLAIN[0], some), speed("plain", OURS[2], some)]
    found += [speed("plain", OURS[8], some), speed("thesis", OURS[8], some)]
    dearest = "Operations that are no convolution, dearest first; step launched kernel by kernel"
    found += [Measurement("operations", lambda: operations(place), dearest, 45, least=10)]
    title = "Where the time is, step captured: kinds of kernels, the dearest"
    found += [Measurement("trace", lambda: trace(place), title, 60, least=15)]
    found += [speed("thesis", COMPILED[1], some), speed("plain", COMPILED[1], some)]
    found += [speed("thesis", OURS[0], some), speed("thesis", OURS[1], some), speed("plain", OURS[1], some)]
    found += [speed("thesis", OURS[7], some), speed("thesis", PLAIN[2], batches[1:2])]
    found += [speed("thesis", OURS[5], some), speed("plain", OURS[7], some)]
    larger = (*batches[2:],)
    found += [speed("thesis", dataclasses.replace(OURS[2], name=f"{OURS[2].name}, other batches"), larger)]
    found += [speed("thesis", dataclasses.replace(PLAIN[0], name=f"{PLAIN[0].name}, other batches"), larger)]
    found += [speed("plain", dataclasses.replace(OURS[2], name=f"{OURS[2].name}, other batches"), larger)]
    found += [speed("thesis", PLAIN[1], some)]
    found += [Measurement("counted", lambda: in_theory(place), "Counted on meta tensors, float32", 90)]
    found += [speed("thesis", way, some) for way in (OURS[3], OURS[4], OURS[6])]
    found += [speed("thesis", COMPILED[0], some), speed("plain", COMPILED[0], some)]
    return found


# What the card can do.


def ceilings(place: Place) -> Iterator[Row]:
    """A matrix product of random values in each arithmetic, and a copy in memory; beside the data sheet."""
    place.begin()
    sheet = counted.card(torch.cuda.get_device_name()) if place.kind == "cuda" else None
    size = 512 if place.small else 8192
    for name, dtype, tf32 in (("bf16", torch.bfloat16, True), ("tf32", torch.float32, True), ("fp32", torch.float32, False)):
        if place.small and name != "fp32":
            continue  # no units for it, or none that is known
        arithmetic(tf32)
        a, b = (torch.randn(size, size, device=place.device, dtype=dtype) for _ in range(2))
        found = [2 * size**3 / seconds / 1e12 for seconds in seconds_of(lambda a=a, b=b: a @ b, place, 0.1)]
        row = {"what": f"matrix product of {size}, {name}", "unit": "TFLOP/s", **spread(found)}
        yield row | ({"data sheet": sheet[name] / 1e12} if sheet else {})
    values = torch.randn((1 << 22) if place.small else (1 << 30), device=place.device)
    target = torch.empty_like(values)
    moved = 2 * values.numel() * 4
    found = [moved / seconds / 1e9 for seconds in seconds_of(lambda: target.copy_(values), place, 0.05)]
    row = {"what": "copy, bytes read and written", "unit": "GB/s", **spread(found)}
    yield row | ({"data sheet": sheet["bytes"] / 1e9} if sheet else {})
    if place.kind == "cuda":
        del values, target
        host = torch.empty(1 << 28, pin_memory=True)
        there = torch.empty(1 << 28, device=place.device)
        found = [
            host.numel() * 4 / seconds / 1e9 for seconds in seconds_of(lambda: there.copy_(host, non_blocking=True), place)
        ]
        yield {"what": "copy from pinned host memory", "unit": "GB/s", **spread(found)}


def matrix_product(place: Place, way: Way) -> float:
    """FLOP/s of a large matrix product in this arithmetic, in this process, now."""
    size = 256 if place.small else 8192
    dtype = torch.bfloat16 if way.precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=place.device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b, place, 0.05, 3))


# Steps.


class Plain(plain_program.Plain):
    """The plainly written program at its best honest settings: autocast, channels_last, torch's fused Adam."""

    def __init__(self, batch: int, place: Place, way: Way) -> None:
        super().__init__(batch, place.device, way.precision == "bf16")
        self.kind, self.enabled = place.kind, way.precision == "bf16"
        for module in (self.generator, self.discriminator):
            module.to(memory_format=LAST[way.layout])  # type: ignore[call-overload]
            if way.how == "compiled":
                module.compile(dynamic=False)

    def step(self, input: torch.Tensor, target: torch.Tensor) -> None:
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.enabled):
            super().step(input, target)


def step_by(place: Place, network: str, way: Way, size: int, built: Any) -> tuple[Callable[[], Any], Any]:
    """One update of `size` pairs; and the networks, where they can be used again for another size."""
    config = config_of(network, place, precision=way.precision, layout=way.layout, compile=way.how in ("compiled", "both"))
    batch = batch_of(config, size, place.device)
    if way.plain:
        of = Plain(size, place, way)
        if place.small:  # it knows one size of picture
            batch = (torch.randn(size, 1, 256, 256), torch.randn(size, 1, 256, 256), None)
        return lambda: of.step(*batch[:2]), None
    built = built or build(config, place)
    if way.how in ("captured", "both"):
        captured = Captured(built, config.train)
        return lambda: captured(*batch, 0), None  # its graphs hold on to their memory: the next size gets new networks
    step = common.step_of(built, config)
    return lambda: step(*batch, 0), built


def rates(place: Place, network: str, way: Way, sizes: tuple[int, ...]) -> Iterator[Row]:
    """Images a second and what belongs to it, a row a size of batch."""
    place.begin()
    if place.small and way.how == "compiled":
        compile_quickly()
    arithmetic(way.tf32)
    torch.backends.cudnn.benchmark = way.chosen
    product = matrix_product(place, way)
    sheet = counted.card(torch.cuda.get_device_name()) if place.kind == "cuda" else None
    config = config_of(network, place)
    built = None
    for size in sizes:
        if place.kind == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        step, built = step_by(place, network, way, size, built)
        for _ in range(0 if place.small else 3):
            step()
        place.wait()
        first = time.perf_counter() - begun
        found = seconds_of(step, place, 0.01 if place.small else 0.2, 1 if place.small else 5)
        seconds = spread(found)
        row: Row = {"whose": "plain" if way.plain else "ours", "network": network, "way": way.name, "batch": size}
        row |= {"images/s": size / seconds["median"], "ms": 1000 * seconds["median"]}
        row |= {"ms, least": 1000 * seconds["least"], "ms, most": 1000 * seconds["most"], "s to begin": first}
        row["kernels"] = kernels(step, place) if place.kind == "cuda" and size == sizes[0] else "–"
        if place.kind == "cuda":
            row["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
        if way.plain and place.small:
            yield row
            continue
        count = counted.count(config, size)
        if place.kind != "cpu" or way.precision != "bf16":  # many processors emulate it: the product says nothing
            row["of a matrix product"] = count.flops / seconds["median"] / product
        if sheet:
            arithmetic_of = "bf16" if way.precision == "bf16" else "tf32" if way.tf32 else "fp32"
            row["of the data sheet"] = count.flops / seconds["median"] / sheet[arithmetic_of]
            floor = count.floor(sheet[arithmetic_of], sheet["bytes"], way.precision == "bf16")
            row["of the floor"] = floor / seconds["median"]
        yield row


def is_annotation(event: Any) -> bool:
    """Whether it spans kernels and is none itself."""
    return getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer.")


def kernels(step: Callable[[], Any], place: Place) -> int:
    """Kernels, copies and fills of one update, as the card's own profiler counts them."""
    place.wait()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        place.wait()
    events = [event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(1 for event in events if not is_annotation(event))


def in_theory(place: Place) -> Iterator[Row]:
    """Of a step: kernels before any fusing, memory, FLOPs, and images/s at the floor of two cards."""
    for network in ("thesis", "plain"):
        for size in (1, 64):
            config = config_of(network, place)
            count = counted.count(config, size)
            row: Row = {"network": network, "batch": size, "kernels": count.kernels, "GFLOP an image": count.flops / size / 1e9}
            row["peak GB"] = count.memory / 1e9
            for name in ("H100", "H200"):
                sheet = counted.CARDS[name]
                row[f"floor of an {name} in bf16, images/s"] = size / count.floor(sheet[0], sheet[3], True)
            yield row


# Where the time is.


def trace(place: Place) -> Iterator[Row]:
    """Ten updates under the profiler: what the kernels took together, and the gaps in which the card had nothing to do."""
    place.begin()
    torch.backends.cudnn.benchmark = True
    for network, size in (("thesis", 64), ("plain", 64), ("thesis", 1)):
        step, _ = step_by(place, network, OURS[2], size, None)
        for _ in range(5):
            step()
        place.wait()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            begun = time.perf_counter()
            for _ in range(10):
                step()
            issued = time.perf_counter() - begun
            place.wait()
            seconds = time.perf_counter() - begun
        totals: dict[str, tuple[float, int]] = {}
        spans = []
        for event in found.events():
            if event.device_type == torch.autograd.DeviceType.CUDA and not is_annotation(event):
                span = event.time_range
                before = totals.get(event.name, (0.0, 0))
                totals[event.name] = (before[0] + span.elapsed_us(), before[1] + 1)
                spans.append((span.start, span.end))
        busy, until = 0.0, float("-inf")
        for start, end in sorted(spans):
            busy += max(0.0, end - max(start, until))
            until = max(until, end)
        row: Row = {
            "network": network,
            "batch": size,
            "kernel": "all",
            "ms a step": busy / 1e4,
            "calls a step": len(spans) / 10,
        }
        row |= {"share": busy / 1e6 / seconds, "the host issued a step in, ms": 100 * issued}
        yield row | {"gaps, ms a step": 100 * seconds - busy / 1e4}
        groups: dict[str, tuple[float, float]] = {}
        for name, (took, calls) in totals.items():
            before = groups.get(group_of(name), (0.0, 0.0))
            groups[group_of(name)] = (before[0] + took, before[1] + calls)
        for group, (took, calls) in sorted(groups.items(), key=lambda one: -one[1][0]):
            yield {
                "batch": size,
                "kernel": f"({group})",
                "ms a step": took / 1e4,
                "calls a step": calls / 10,
                "share": took / busy,
            }
        for name, (took, calls) in sorted(totals.items(), key=lambda one: -one[1][0])[:10]:
            row = {"network": network, "batch": size, "kernel": in_short(name), "ms a step": took / 1e4}
            yield {**row, "calls a step": calls / 10, "share": took / busy}


def in_short(kernel: str) -> str:
    """The name of a kernel without what all have, so that what it computes is in the first 90 characters.

    >>> in_short("void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::f_cuda>>")
    'elementwise_kernel<128, 4, f_cuda>>'
    """
    everywhere = r"void |at::native::|at::|c10::|std::|\(anonymous namespace\)::|gpu_kernel_impl(_nocast)?<"
    return re.sub(everywhere, "", kernel)[:90]


def operations(place: Place) -> Iterator[Row]:
    """Five updates launched kernel by kernel: which operations on which shapes take the time that convolutions do not."""
    place.begin()
    torch.backends.cudnn.benchmark = True
    device = [ProfilerActivity.CPU] if place.small else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    for network in place.networks:
        way = Way("bf16, channels_last", "fp32" if place.small else "bf16", layout="channels_last")
        step, _ = step_by(place, network, way, 2 if place.small else 64, None)
        step()
        with profile(activities=device, record_shapes=True) as found:
            for _ in range(1 if place.small else 5):
                step()
            place.wait()
        times: list[tuple[float, Any]] = []
        for event in found.key_averages(group_by_input_shape=True):
            took = event.self_cpu_time_total if place.small else event.self_device_time_total
            if took and "conv" not in event.key and event.key.startswith("aten::"):
                times.append((took / (1 if place.small else 5), event))
        for took, event in sorted(times, key=lambda one: -one[0])[:16]:
            row: Row = {
                "network": network,
                "operation": event.key,
                "shapes": str([one for one in event.input_shapes if one])[:80],
            }
            yield row | {"ms a step": took / 1000, "calls a step": event.count / (1 if place.small else 5)}


GROUPS = {
    "norm": ("norm", "welford", "Welford"),
    "optimisers": ("Adam", "multi_tensor"),
    "convolutions": ("conv", "gemm", "cudnn", "cutlass", "xmma", "wgrad", "dgrad"),
    "copies, casts, concatenations": ("copy", "Copy", "Memcpy", "Memset", "Cat", "nchwToNhwc", "nhwcToNchw", "transpose"),
    "reductions": ("reduce", "Reduce"),
}
"""Kinds of kernels, by parts of their names; the first that fits."""


def group_of(kernel: str) -> str:
    return next((group for group, parts in GROUPS.items() if any(part in kernel for part in parts)), "element by element")


def data_wait(place: Place) -> Iterator[Row]:
    """Updates as the loop makes them, over batches that are read, against the same over one batch that is there."""
    place.begin()
    torch.backends.cudnn.benchmark = True
    index, config = pairs_on_disk(place, "wait", 64 if place.small else 2048)
    size = 4 if place.small else 64
    train = dataclasses.replace(config.train, precision="fp32" if place.small else "bf16")
    config = dataclasses.replace(config, train=train)
    built = build(config, place)
    for stage in ("none", "device", "node"):
        data = dataclasses.replace(config.data, stage=stage)
        here = Index(copy_to_node(index.folder, "train"), "train") if stage == "node" else index
        loop_like = Updates(place, built, config, Stream(here, data, seed=0, global_batch_size=size, device=place.device))
        for read in (True, False, True, False, True, False):
            loop_like.update(read)
        place.wait()
        loop_like.count_anew()
        alone, reading = (
            spread(seconds_of(lambda read=read, of=loop_like: of.update(read), place, 0.02 if place.small else 0.2, 3))[
                "median"
            ]
            for read in (False, True)
        )
        row: Row = {"stage": stage, "batch": size, "ms with reading": 1000 * reading, "ms over one batch": 1000 * alone}
        row["host in the reader, ms"] = 1000 * loop_like.waited / loop_like.read
        row["data_wait of the loop"] = loop_like.data_wait.take() / loop_like.read / reading
        yield {**row, "share of the step": max(0.0, 1 - alone / reading)}


class Updates:
    """Updates one after another, as train/loop.py makes them, captured where it captures them."""

    def __init__(self, place: Place, built: Any, config: Any, stream: Stream) -> None:
        self.place, self.stream, self.step = place, stream, step_of(built, config.train, place.ranks)
        self.noises = Noise(stream, 0, (config.model.noise_channels, config.data.mels, config.data.frames))
        self.watch = nonfinite.Watch(built, stream, place.ranks, place.scratch)
        self.data_wait, self.number = DataWait(place.device), 0
        self.count_anew()
        self.fixed = self._batch(0)

    def count_anew(self) -> None:
        self.read, self.waited = 0, 0.0
        self.data_wait.take()

    def _batch(self, number: int) -> tuple[Any, Any, Any]:
        return (*self.stream.batch(number), self.noises.batch(number))

    def update(self, read: bool) -> None:
        batch = self.fixed
        if read:
            begun = time.perf_counter()
            with self.data_wait.batch():
                batch = self._batch(self.number)
            self.waited += time.perf_counter() - begun
            self.read += 1
        self.number += 1
        flags = self.step(*batch, 0)[1]
        self.data_wait.step_given()
        self.watch.after(self.number, flags)

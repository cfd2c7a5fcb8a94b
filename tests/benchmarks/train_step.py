"""What one update of both networks costs, beside a plainly written Pix2Pix of the same networks.

    python tests/benchmarks/train_step.py [--json FILE] [--batches 1 16] [--rounds 5] [--compile]

Interleaved rounds in one process. On a CPU in one thread, in CPU seconds, because wall times of a shared machine say
little; on a GPU, where there is one, in seconds. Also what a checkpoint keeps the training from doing, and on a CPU what
two ranks over gloo cost beside the same two processes without DDP.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from p2p_dist.common import linux
from p2p_dist.run import rundir
from p2p_dist.settings.config import Config
from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import distributed, networks, speed
from p2p_dist.train.saver import Saver
from p2p_dist.train.step import train_step
from tests.rank_processes import run_on_ranks

THESIS = PRESETS["thesis"]


# A Pix2Pix as one finds it: recursive U-Net, PatchGAN, forward, discriminator, generator.


class PlainBlock(nn.Module):
    def __init__(self, outer: int, inner: int, inside: nn.Module | None, drop: bool = False, batch: int = 1) -> None:
        super().__init__()
        down = [nn.LeakyReLU(0.3), nn.Conv2d(outer, inner, 4, 2, 1, bias=False)]
        if inside is not None or batch > 1:  # torch can't normalise a 1 x 1 picture alone
            down.append(nn.BatchNorm2d(inner, eps=1e-3))
        up = [nn.ReLU(), nn.ConvTranspose2d(inner if inside is None else 2 * inner, outer, 4, 2, 1, bias=False)]
        up += [nn.BatchNorm2d(outer, eps=1e-3), *([nn.Dropout(0.5)] if drop else [])]
        self.model = nn.Sequential(*down, *([inside] if inside is not None else []), *up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.model(x)], 1)


class PlainGenerator(nn.Module):
    def __init__(self, batch: int) -> None:
        super().__init__()
        block = PlainBlock(512, 512, None, True, batch)
        block = PlainBlock(512, 512, block, True)
        block = PlainBlock(512, 512, block, True)
        block = PlainBlock(512, 512, block)
        block = PlainBlock(256, 512, block)
        block = PlainBlock(128, 256, block)
        block = PlainBlock(64, 128, block)
        self.first = nn.Conv2d(1, 64, 4, 2, 1, bias=False)
        self.inside = block
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(128, 1, 4, 2, 1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inside(self.first(x)))


def plain_discriminator() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(2, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.3)]
    for into, out, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(into, out, 4, stride, 1, bias=False), nn.BatchNorm2d(out, eps=1e-3), nn.LeakyReLU(0.3)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


class Plain:
    """forward; discriminator on (real, detached output); generator: GAN + 100 x L1. Torch's default Adam, or the fused."""

    def __init__(self, batch: int, device: torch.device, fused: bool) -> None:
        self.generator = PlainGenerator(batch).to(device)
        self.discriminator = plain_discriminator().to(device)
        settings: dict[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-7, "fused": fused or None}
        self.of_generator = torch.optim.Adam(self.generator.parameters(), **settings)
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters(), **settings)
        self.gan, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def step(self, input: torch.Tensor, target: torch.Tensor) -> None:
        output = self.generator(input)
        self.discriminator.requires_grad_(True)
        self.of_discriminator.zero_grad()
        generated = self.discriminator(torch.cat((input, output.detach()), 1))
        real = self.discriminator(torch.cat((input, target), 1))
        (self.gan(generated, torch.zeros_like(generated)) + self.gan(real, torch.ones_like(real))).backward()
        self.of_discriminator.step()
        self.discriminator.requires_grad_(False)
        self.of_generator.zero_grad()
        judged = self.discriminator(torch.cat((input, output), 1))
        (self.gan(judged, torch.ones_like(judged)) + 100 * self.l1(output, target)).backward()
        self.of_generator.step()


# Ours, and the rounds.


def with_train(**changed: Any) -> Config:
    return dataclasses.replace(THESIS, train=dataclasses.replace(THESIS.train, **changed))


VARIANTS = {
    "ours, fp32": with_train(precision="fp32", layout="contiguous"),
    "ours, fp32, channels_last": with_train(precision="fp32", layout="channels_last"),
    "ours, bf16": with_train(precision="bf16", layout="contiguous"),
    "ours, bf16, channels_last": with_train(precision="bf16", layout="channels_last"),
}
COMPILED = {"ours, bf16, channels_last, compiled": with_train(precision="bf16", layout="channels_last", compile=True)}


def ours(config: Config, ranks: distributed.Ranks) -> tuple[networks.Networks, Callable[..., None]]:
    built = networks.build(config, ranks)
    return built, lambda input, target: train_step(built, input, target, None, config.train, 0) and None


def pictures(batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    pair = [torch.rand(batch, 1, 256, 256, generator=random) * 2 - 1 for _ in range(2)]
    return pair[0].to(device), pair[1].to(device)


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """CPU seconds of this process on a CPU, seconds on a GPU."""
    if device.type == "cpu":
        begun = time.process_time()
        work()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(10):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / 10


def interleaved(
    steps: dict[str, Callable[[], Any]], rounds: int, device: torch.device, say: Callable[[str], None] = lambda text: None
) -> dict[str, list[float]]:
    """Seconds of each by name: one warm-up, then in every round one after the other. Each is said as it is measured."""
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            found[name].append(seconds_of(step, device))
            say(f"round {number + 1} of {rounds}: {name}: {found[name][-1]:.4g} s")
    return found


def left_out(device: torch.device, cpuinfo: str) -> dict[str, str]:
    """Why a variant isn't measured, by its name: a CPU without units for bf16 computes it some twenty times slower."""
    if device.type != "cpu" or linux.computes_in_bf16(cpuinfo):
        return {}
    names = (name for name in (*VARIANTS, *COMPILED) if "bf16" in name)
    return dict.fromkeys(names, "this processor has no units for bf16 (avx512_bf16 or amx_bf16)")


def variants(batch: int, rounds: int, device: torch.device, compiled: bool) -> list[dict[str, Any]]:
    ranks = distributed.Ranks(0, 1, 0, device, None)
    input, target = pictures(batch, device)
    plain, fused = Plain(batch, device, False), Plain(batch, device, True)
    steps = {"plain": lambda: plain.step(input, target), "plain, fused Adam": lambda: fused.step(input, target)}
    built = {}
    skipped = left_out(device, Path("/proc/cpuinfo").read_text())
    for name, config in {**VARIANTS, **(COMPILED if compiled else {})}.items():
        if name in skipped:
            print(f"left out: {name}: {skipped[name]}", flush=True)
            continue
        built[name], step = ours(config, ranks)
        steps[name] = lambda step=step: step(input, target)
    times = interleaved(steps, rounds, device, lambda text: print(f"batch {batch}, {text}", flush=True))
    keeping = [seconds_of(built["ours, fp32"].keep, device) for _ in range(5)]
    flops = speed.flops_per_image(THESIS) * batch
    rows = []
    for name, found in times.items():
        seconds = statistics.median(found)
        ratio = statistics.median(a / b for a, b in zip(times["plain"], found, strict=True))
        rows.append(
            {
                "batch": batch,
                "variant": name,
                "seconds": seconds,
                "images_per_second": batch / seconds,
                "gflops": flops / seconds / 1e9,
                "times_plain": ratio,
                "rounds": found,
            }
        )
    rows.append({"batch": batch, "variant": "copies for undoing a step (inside ours)", "seconds": statistics.median(keeping)})
    return rows


def blocking(device: torch.device) -> list[dict[str, Any]]:
    """What a checkpoint of the thesis's networks, and of those with a moving average, takes of the training.

    The copy in the host's memory holds it up; the write goes on beside it, and is what a kill can cost beyond one interval.
    The second save of each counts: the first also asks for the memory.
    """
    rows = []
    for name, ema in (("without", 0.0), ("with", 0.999)):
        config = with_train(ema=ema)
        built = networks.build(config, distributed.Ranks(0, 1, 0, device, None))
        with tempfile.TemporaryDirectory() as folder:
            saver = Saver(Path(folder), 2, lambda step: False)
            for step in (1, 2):
                begun = time.perf_counter()
                saver.save(step, {"networks": built.state()}, built.to_evaluate(), {})
                copied = time.perf_counter()
                saver.wait()
                row = {"copy_seconds": copied - begun, "write_seconds": time.perf_counter() - copied}
            path = Path(folder) / rundir.step_name(2)
            size = sum(file.stat().st_size for file in path.iterdir())
        rows.append({"what": f"checkpoint {name} moving average", "megabytes": size / 1e6, **row})
    return rows


def on_a_rank(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step at batch 1 in this process: alone, under DDP, under DDP with bf16 gradients."""
    place, _ = distributed.start()
    alone = dataclasses.replace(place, world_size=1, gloo=None)
    input, target = pictures(1, place.device)
    steps = {}
    for name, config, ranks in (
        ("without DDP", with_train(), alone),
        ("DDP", with_train(), place),
        ("DDP, bf16 gradients", with_train(gradient_precision="bf16"), place),
    ):
        _, step = ours(config, ranks)
        steps[name] = lambda step=step: step(input, target)
    return interleaved(steps, rounds, place.device)


def ddp(rounds: int) -> list[dict[str, Any]]:
    both = run_on_ranks(2, on_a_rank, rounds, seconds=1800)
    times = {name: [a + b for a, b in zip(*(found[name] for found in both), strict=True)] for name in both[0]}
    alone = statistics.median(times["without DDP"])
    return [
        {"what": name, "cpu_seconds_of_both_ranks": statistics.median(found), "ratio": statistics.median(found) / alone}
        for name, found in times.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    names = [name for name in rows[0] if name != "rounds"]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        values = [row.get(name, "") for name in names]
        lines.append("| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values) + " |")
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {'with' if any('avx512_bf16' in line for line in lines) else 'without'} avx512_bf16, 1 thread"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5, help="of batch 1; a larger batch gets fewer, at least one")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, whose first step takes minutes")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result: dict[str, Any] = {"machine": machine(device), "torch": torch.__version__, "load": os.getloadavg()[0], "steps": []}
    print(f"{result['machine']}; torch {result['torch']}; load {result['load']:.1f}\n", flush=True)
    for batch in asked.batches:
        rounds = asked.rounds if device.type == "cuda" else max(1, asked.rounds // batch)
        rows = variants(batch, rounds, device, asked.compile)
        print(table(rows) + "\n", flush=True)
        result["steps"] += rows
    result["checkpoint"] = blocking(device)
    print(table(result["checkpoint"]) + "\n", flush=True)
    if device.type == "cpu":
        result["ddp"] = ddp(asked.rounds)
        print(table(result["ddp"]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Measure the memory of two training steps: `peak_memory.py PRESET BATCH [PRESET BATCH ...]` prints the bytes of each.

Each is measured in a child of its own, forked from a process that has done nothing but import torch: within a test process the
memory that other tests have freed is taken again, and would not be seen.
"""

import dataclasses
import os
import sys
from pathlib import Path

import torch

from p2p_dist.settings import config, presets
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import build
from p2p_dist.train.step import train_step


def now(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def peak(settings: config.Config) -> int:
    """Bytes that this process takes at most for two steps, beside what it had before."""
    before = now("RssAnon")
    networks = build(settings, Ranks(0, 1, 0, torch.device("cpu"), None))
    shape = (settings.train.global_batch_size, 1, settings.data.mels, settings.data.frames)
    for _ in range(2):
        train_step(networks, torch.rand(shape), torch.rand(shape), torch.rand(shape), settings.train, 0)
    return now("VmHWM") - before - now("RssFile")


for name, batch in zip(sys.argv[1::2], map(int, sys.argv[2::2]), strict=True):
    base = presets.PRESETS[name]
    settings = dataclasses.replace(base, train=dataclasses.replace(base.train, global_batch_size=batch))
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        print(peak(settings), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)

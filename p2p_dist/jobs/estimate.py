"""Estimate the requirements of a run from its settings, on the submit host: parameters, FLOPs, memory, windows, bytes.

This module does not import torch. tests/jobs/test_estimate.py compares each estimate with real networks, processes and files.
"""

from __future__ import annotations

import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from p2p_dist.audio import layouts, stem_streams
from p2p_dist.common import linux
from p2p_dist.settings.config import Config, Data, Model

MB = 1_000_000

IMPORTED = 280 * MB
"""Bytes of a Python process with torch imported (measured: 2.13, CPU). Forked processes on one machine share them."""

# Peak memory of one training process on a CPU beside that, over presets tiny, demo, small, default, thesis and shares of 1 to
# 32 pairs: 100 MB + 28 bytes a parameter (weights, gradients, two moments, moving average, copies of the discriminator)
# + 64 bytes for each pixel and channel of the first level of each pair. Measured: 50 % to 96 % of that.
PROCESS = 100 * MB
OF_PARAMETER = 28
OF_PIXEL = 64
SAVED = 16
"""Bytes per parameter of the copy in the process that saves."""


@dataclass(frozen=True)
class Layer:
    """One convolution with its norm: parameters, and multiplications for one window."""

    parameters: int
    products: int


def generator(model: Model, data: Data) -> Iterator[Layer]:
    """List the layers of model/generator.py."""
    widths = [min(model.channels * 2**level, model.max_channels) for level in range(model.depth)]
    pixels, pictures = data.mels * data.frames, data.picture_channels
    # Weights of a kernel, and the number of multiplications per value of the upsampled output.
    kernel, taps = {"nearest": (9, 9), "folded": (9, 4), "transposed": (16, 4)}[model.upsample]
    before = pictures + model.noise_channels + model.guide_channels(pictures)
    for level, width in enumerate(widths):
        weights = 16 * before * width
        yield Layer(weights + (2 * width if level else 0), weights * pixels // 4 ** (level + 1))
        before = width
    for level in reversed(range(model.depth - 1)):
        into = widths[-1] if level == model.depth - 2 else 2 * widths[level + 1]
        planes = into * widths[level]
        yield Layer(kernel * planes + 2 * widths[level], taps * planes * pixels // 4 ** (level + 1))
    planes = (2 * widths[0] if model.depth > 1 else widths[0]) * pictures
    yield Layer(kernel * planes + pictures, taps * planes * pixels)


def discriminator(model: Model, data: Data) -> Iterator[Layer]:
    """List the layers of model/discriminator.py."""
    spectral = model.discriminator_norm == "spectral"
    before = 2 * data.picture_channels
    for level in range(4):
        width = model.discriminator_channels * 2**level
        height, length = (side // 2 ** (level + 1) if level < 3 else side // 8 - 1 for side in (data.mels, data.frames))
        weights = 16 * before * width
        further = width if spectral else 2 * width if level else 0
        yield Layer(weights + further, weights * height * length)
        before = width
    weights = 16 * before
    yield Layer(weights + 1, weights * (data.mels // 8 - 2) * (data.frames // 8 - 2))


def parameters(model: Model, data: Data) -> tuple[int, int]:
    """Return the numbers of parameters of the generator and of the discriminator."""
    counts = [sum(layer.parameters for layer in of(model, data)) for of in (generator, discriminator)]
    return counts[0], counts[1]


def flops_per_image(config: Config) -> int:
    """Return the floating-point operations of one update per pair, as train/speed.py counts on the real networks."""
    layers = [[2 * layer.products for layer in of(config.model, config.data)] for of in (generator, discriminator)]
    (g, g_first), (d, d_first) = ((sum(each), each[0]) for each in layers)
    # Generator: forward, and backward to weights and inputs. Discriminator: the same for the real and the generated pair,
    # then for the generator's loss forward and backward to its input, and one more forward with feature matching. A first
    # layer needs no gradient of its input, except in the discriminator for the generator's loss.
    known = 1 if config.train.feature_weight else 0
    return 3 * g - g_first + (6 + 2 + known) * d - 2 * d_first


EXPECTED_FLOPS = {"bf16": 40e12, "fp32": 12e12}
"""Expected FLOP/s of a training on one GPU, from a roofline model of one die of an MI250X (0.3 of its matrix peak, 0.65 of
its memory bandwidth). Not measured: the measured speed of the run is used instead once there is one."""


def images_per_second(config: Config, processes: int) -> float:
    """Estimate the training speed on a number of GPUs, in pairs per second."""
    return processes * EXPECTED_FLOPS["fp32" if config.train.precision == "fp32" else "bf16"] / flops_per_image(config)


def memory(config: Config, processes: int) -> int:
    """Estimate the bytes of one training process on a CPU, without python and torch."""
    share = math.ceil(config.train.global_batch_size / processes)
    at_once = min(share, config.train.micro_batch_size or share)
    channels = max(config.model.channels, config.model.discriminator_channels)
    pixels = config.data.mels * config.data.frames * channels
    return PROCESS + OF_PARAMETER * sum(parameters(config.model, config.data)) + OF_PIXEL * pixels * at_once


def memory_of_node(config: Config, processes: int, here: int, *, forked: bool) -> int:
    """Estimate the bytes of `here` training processes on one machine, of which the first one saves checkpoints."""
    imported = IMPORTED if forked else here * IMPORTED
    return imported + here * memory(config, processes) + SAVED * sum(parameters(config.model, config.data))


def with_micro_batch(config: Config, size: int) -> Config:
    """Return the settings with another micro-batch size."""
    return replace(config, train=replace(config.train, micro_batch_size=size))


def shard_bytes(data: Data, counts: dict[str, int | None]) -> int:
    """Estimate the bytes of the shards: float16 pairs of all windows, and the audio of the held-out songs."""
    pair = 2 * 2 * data.picture_channels * data.mels * data.frames + 2048  # with the overhead of npz, json and tar
    second = 2 * 2 * 3 * 44_100 * 7 // 10  # input and target, stereo, 24 bits, as flac
    sound = second * data.window_hop * data.hop_length // data.sample_rate
    held_out = sum(count or 0 for split, count in counts.items() if split != "train")
    return (counts.get("train") or 0) * pair + held_out * (pair + sound)


SKETCHES = 3
"""Sketches of each training song, as the stage `pattern` makes them: `guides.TRUE`; with predicted strokes one more."""


# Bytes that the stage `pattern` keeps beside the sketches: features of a second of a song (float16); strokes of a song, of a
# second of strokes and of most songs (16 bits, as flac; EVR's have 0.6 to 1.1 MB); the weights of a pattern network.
FEATURES = 14_200
STROKES, STROKES_OF_SONG = 62_000, 1_200_000
KITS = 32
PATTERN_NETWORK = 1_000_000


def pattern_bytes(config: Config, trained: int, songs: int) -> int:
    """Estimate the bytes of the folder pattern/ of a run, see generate/pattern_stage.py; 0 without a sketch.

    Args:
        trained: training windows. songs: training songs.
    """
    if not config.model.sketch or not songs:
        return 0
    data = config.data
    frames = trained * data.window_hop
    seconds = frames * data.hop_length / data.sample_rate
    predicted = config.train.predicted_strokes
    sketches = (SKETCHES + predicted) * frames * 2 * (data.picture_channels * data.mels + 2)
    strokes = min(STROKES * seconds, STROKES_OF_SONG * songs)
    of_drummer = PATTERN_NETWORK + strokes * min(songs, KITS) / songs
    networks = (3 + (3 if predicted else 1)) * PATTERN_NETWORK  # of the one in training weights and two moments, too
    return round(sketches + FEATURES * seconds + strokes + networks + of_drummer)


def checkpoint_bytes(config: Config, trained: int | None) -> tuple[int, int]:
    """Estimate the bytes of the generators that are kept permanently, and of the whole checkpoints.

    Args:
        trained: training windows; None: not known, and then of one generator.
    """
    g, d = parameters(config.model, config.data)
    whole = 4 * (3 * (g + d) + (g if config.train.ema else 0)) + 4 * g
    if trained is None:
        return 4 * g, (config.train.keep_last + 1) * whole
    total = config.train.total_steps(trained)
    between = config.train.keep_every * trained / config.train.global_batch_size
    return 4 * g * min(total, math.ceil(total / between)), (config.train.keep_last + 1) * whole


def free_memory() -> int:
    """Return the free memory in bytes for this process and its children: of the machine or of its cgroup."""
    free = linux.free_memory()
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            most = (Path("/sys/fs/cgroup") / limit).read_text().strip()
            if most != "max":
                free = min(free, int(most) - int((Path("/sys/fs/cgroup") / used).read_text()))
        except (OSError, ValueError):
            continue
    return free


def free_disk(folder: Path) -> int:
    """Return the free bytes on the file system of a folder, which need not exist."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def windows(data: Data, root: Path) -> dict[str, int | None]:
    """Map split -> number of windows, from the lengths in the headers of the songs; None if unknown.

    Silent windows are counted, although they may be skipped, so this is an upper bound.
    """
    try:
        found = layouts.find_songs(root, data.split_by_title)
    except (ValueError, ImportError):  # musdb, which knows MUSDB18's validation songs, need not be on a login node
        found = layouts.list_songs(root, data.split_by_title)
    lengths: dict[str, list[float | None]] = {}
    for song in found:
        step = data.window_hop * data.hop_length / data.sample_rate
        lengths.setdefault(song.split, []).append(len(song.pairs) * step if song.pairs else seconds(song))
    counts: dict[str, int | None] = {}
    for split, all_of in lengths.items():
        known = [_windows(data, length) for length in all_of if length is not None]
        copies = 1 + (data.copies if split == "train" else 0)
        counts[split] = round(sum(known) * len(all_of) / len(known)) * copies if known else None
    return counts


def _windows(data: Data, length: float) -> int:
    frames = length * data.sample_rate / data.hop_length
    return max(1, math.ceil((frames - data.frames) / data.window_hop) + 1)


def seconds(song: layouts.Source) -> float | None:
    """Return the length of a song, seconds, from the header of its first file; None if unknown."""
    for file in song.files():
        try:
            with file.open("rb") as content:
                head = content.read(64)
                if (
                    head[:4] in (b"RIFF", b"RF64", b"BW64")
                    and head[12:16] == b"fmt "
                    and (rate := int.from_bytes(head[28:32], "little"))
                ):
                    return max(file.stat().st_size - 44, 0) / rate
                if head[:4] == b"fLaC":
                    word = int.from_bytes(head[18:26], "big")
                    rate, samples = word >> 44, word & (1 << 36) - 1
                    return samples / rate if rate and samples else None
                if head[4:8] == b"ftyp":
                    return _mp4_seconds(content, file.stat().st_size)
        except OSError:  # preprocessing reports it
            return None
    return None


def _mp4_seconds(file: IO[bytes], size: int) -> float | None:
    """Return the duration in the movie header (ISO/IEC 14496-12, 8.2.2), seconds; None without such a header."""
    try:
        begin, _ = stem_streams.box(file, b"mvhd", *stem_streams.box(file, b"moov", 0, size))
    except LookupError:
        return None
    file.seek(begin)
    header = file.read(32).ljust(32, b"\0")
    scale, duration = struct.unpack_from(">II", header, 12) if header[0] == 0 else struct.unpack_from(">IQ", header, 20)
    return duration / scale if scale else None

"""Convert the mel power of a stem to audio, in overlapping blocks of frames.

Griffin-Lim looks, at each iteration, only a few frames to either side. So blocks overlap, each begins with the phase that its
frames would have in the undivided piece, and only its middle is kept: with `_BESIDE` frames on either side for each iteration
the result differs from the undivided one by less than -100 dB at the borders; with 3, n_fft over hop_length less 1, by nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from p2p_dist.audio.invert import MOMENTUM, griffin_lim, mel_to_magnitude, random_phase
from p2p_dist.audio.spectrogram import frame_count
from p2p_dist.common import linux
from p2p_dist.generate.request import ITERATIONS
from p2p_dist.settings.config import Data

_BESIDE = 1.5
_BLOCK = 1024  # frames


def sound(
    power: Iterator[np.ndarray],
    samples: int,
    data: Data,
    device: torch.device,
    times: dict[str, float],
    iterations: int = ITERATIONS,
    block: int = _BLOCK,
) -> Iterator[np.ndarray]:
    """Yield the audio of a stem at the model's rate, in blocks float32 (samples, channels).

    On a CPU, threads compute the blocks while the generator continues. On a GPU one thread does, but not on that of a Mac.

    Args:
        power: blocks of mel power, (channels, mels, frames). times: the computing time in seconds is added to `phase`.
    """
    beside, over = int(_BESIDE * iterations), threading.Event()

    def make(mels: np.ndarray, first: int, begin: int, end: int) -> tuple[np.ndarray, float]:
        """Return the audio of frames `begin` to `end`, and the seconds that it took.

        Args:
            mels: a block of the stem that starts at frame `first`.
        """
        begun = time.perf_counter()
        last = first + mels.shape[2]
        until = samples if last == frame_count(samples, data.hop_length) else data.hop_length * (last - 1)
        of_part = until - data.hop_length * first
        made = [_part(one, of_part, first, iterations, data, device, over.is_set) for one in mels]
        kept = slice(data.hop_length * (begin - first), data.hop_length * (end - first) if end < last else None)
        return np.stack(made, axis=1)[kept], time.perf_counter() - begun

    def taken(block: Future[tuple[np.ndarray, float]]) -> np.ndarray:
        audio, seconds = block.result()
        times["phase"] += seconds
        return audio

    workers = 1 if device.type == "cuda" else linux.usable_cores()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[tuple[np.ndarray, float]]] = deque()
    try:
        for job in _jobs(power, block, beside):
            waiting.append(pool.submit(make, *job))
            if len(waiting) > workers:
                yield taken(waiting.popleft())
        while waiting:
            yield taken(waiting.popleft())
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _jobs(power: Iterator[np.ndarray], block: int, beside: int) -> Iterator[tuple[np.ndarray, int, int, int]]:
    """Yield overlapping blocks: mel power, its first frame, and begin and end of the frames to keep."""
    held, first, begin = None, 0, 0
    for part in power:
        held = part if held is None else np.concatenate([held, part], axis=2)
        while first + held.shape[2] > begin + block + beside:
            yield held[..., : begin + block + beside - first], first, begin, begin + block
            begin += block
            drop = max(begin - beside - first, 0)
            held, first = held[..., drop:].copy(), first + drop
    assert held is not None, "a stem without frames"
    yield held, first, begin, first + held.shape[2]


def mel_to_audio_on(
    device: torch.device | None,
    mel: np.ndarray,
    samples: int,
    data: Data,
    iterations: int = ITERATIONS,
    is_over: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """`audio.invert.mel_to_audio`, with Griffin-Lim on a GPU if that is the device (None: the processor).

    Args:
        is_over: see `audio.invert.griffin_lim`.
    """
    return _part(mel, samples, 0, iterations, data, device or torch.device("cpu"), is_over)


def _part(
    mel: np.ndarray,
    samples: int,
    first: int,
    iterations: int,
    data: Data,
    device: torch.device,
    is_over: Callable[[], bool],
) -> np.ndarray:
    """Return the audio of one channel of a block, float32 (samples,)."""
    magnitude = mel_to_magnitude(mel, data.sample_rate, data.n_fft)
    if device.type != "cuda":  # a Mac's GPU, too: torch has no transform there that is known to be right
        return griffin_lim(magnitude, data.n_fft, data.hop_length, samples, iterations, first=first, is_over=is_over)
    return griffin_lim_on(device, magnitude, data.n_fft, data.hop_length, samples, iterations, first)


def griffin_lim_on(
    device: torch.device, magnitude: np.ndarray, n_fft: int, hop_length: int, samples: int, iterations: int, first: int = 0
) -> np.ndarray:
    """`audio.invert.griffin_lim` on a GPU (scipy's FFT is as fast as torch's on a CPU)."""
    target = torch.from_numpy(np.ascontiguousarray(magnitude.T)).to(device)
    frames, length = len(target), n_fft + hop_length * len(target)
    window = torch.hann_window(n_fft, device=device)

    def added(parts: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(length, device=device)
        for start in range(0, n_fft, hop_length):  # overlap-add: one hop of all frames at a time
            total[start : start + hop_length * frames] += parts[:, start : start + hop_length].reshape(-1)
        return total

    scale = 1 / added((window**2).expand(frames, -1)).clamp(min=1e-8)
    scale[: n_fft // 2] = 0
    scale[n_fft // 2 + samples :] = 0

    def rebuilt(spectrum: torch.Tensor) -> torch.Tensor:
        return added(torch.fft.irfft(spectrum, n_fft, dim=1) * window) * scale

    spectrum = target * torch.from_numpy(random_phase(len(target), target.shape[1], 0, first)).to(device)
    previous = torch.zeros_like(spectrum)
    for _ in range(iterations):
        signal = rebuilt(spectrum)[: length - hop_length]
        found = torch.fft.rfft(signal.unfold(0, n_fft, hop_length) * window, dim=1)
        ahead = found - MOMENTUM / (1 + MOMENTUM) * previous
        spectrum = target * (ahead / ahead.abs().clamp(min=1e-12))
        previous = found
    return rebuilt(spectrum)[n_fft // 2 : n_fft // 2 + samples].cpu().numpy()

"""Phase is rebuilt in blocks: their borders are not heard, and what a GPU does is what a CPU does."""

import dataclasses
import signal as signals
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from p2p_dist.audio.invert import griffin_lim, mel_to_audio, mel_to_magnitude
from p2p_dist.audio.spectrogram import mel_power
from p2p_dist.common import linux
from p2p_dist.generate import phase
from p2p_dist.settings.presets import preset

CPU = torch.device("cpu")
DATA = dataclasses.replace(preset("tiny").data, mels=64)


@pytest.fixture(scope="module")
def signal():
    """Hits and a tone that goes through every border; 4.1 s."""
    random = np.random.default_rng(0)
    time = np.arange(int(4.1 * DATA.sample_rate)) / DATA.sample_rate
    hits = 0.3 * random.standard_normal(len(time)) * np.exp(-15 * (time % 0.4))
    return (hits + 0.1 * np.sin(2 * np.pi * 330 * time)).astype(np.float32)


@pytest.fixture(scope="module")
def mel(signal):
    return mel_power(signal, DATA.sample_rate, DATA.n_fft, DATA.hop_length, DATA.mels)


def in_blocks(mel, samples, iterations, block, size=37):
    parts = (mel[None, :, start : start + size] for start in range(0, mel.shape[1], size))
    times = {"phase": 0.0}
    found = np.concatenate(list(phase.sound(parts, samples, DATA, CPU, times, iterations, block)))
    assert times["phase"] > 0
    return found[:, 0]


@pytest.mark.parametrize("iterations", [8, 32, phase.ITERATIONS])
def test_borders_of_blocks_are_not_heard(mel, signal, iterations):
    """The difference to the undivided result, just round each border, against the sound there."""
    whole = mel_to_audio(mel, DATA.sample_rate, DATA.n_fft, DATA.hop_length, len(signal), iterations)
    block = 110
    found = in_blocks(mel, len(signal), iterations, block)
    assert found.shape == whole.shape
    worst = -200.0
    for border in range(block * DATA.hop_length, len(whole), block * DATA.hop_length):
        near = slice(border - 2048, border + 2048)
        worst = max(worst, 10 * np.log10(((found - whole)[near] ** 2).mean() / (whole[near] ** 2).mean() + 1e-20))
    assert worst < -60, f"{worst:.1f} dB"


def test_blocks_without_overlap_would_be_heard(mel, signal, monkeypatch):
    monkeypatch.setattr(phase, "_BESIDE", 0.1)
    whole = mel_to_audio(mel, DATA.sample_rate, DATA.n_fft, DATA.hop_length, len(signal), 32)
    found = in_blocks(mel, len(signal), 32, 110)
    border = slice(110 * DATA.hop_length - 2048, 110 * DATA.hop_length + 2048)
    assert 10 * np.log10(((found - whole)[border] ** 2).mean() / (whole[border] ** 2).mean()) > -60


@pytest.mark.parametrize("samples", [10, 300, 5000])
def test_short_stems(samples):
    frames = 1 + samples // DATA.hop_length
    found = in_blocks(np.ones((DATA.mels, frames), np.float32), samples, 3, 110)
    assert found.shape == (samples,) and np.isfinite(found).all()


def test_no_more_of_a_stem_is_waiting_than_is_worked_on():
    taken = []

    def parts():
        for number in range(400):
            taken.append(number)
            yield np.ones((1, DATA.mels, 10), np.float32)

    making = phase.sound(parts(), 3999 * DATA.hop_length, DATA, CPU, {"phase": 0.0}, 1, 20)
    next(making)
    assert len(taken) * 10 <= 20 * (linux.usable_cores() + 2) + 10
    making.close()


def test_who_wants_no_more_of_it_does_not_wait_for_blocks_in_hand(mel, signal):
    """So that Ctrl-C is answered soon: these iterations would take some ten minutes."""
    begun = time.perf_counter()
    making = phase.sound(iter([mel[None]]), len(signal), DATA, CPU, {"phase": 0.0}, 100_000, 20)
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.2):
        next(making)
    assert time.perf_counter() - begun < 10


@contextmanager
def interrupted_after(seconds):
    before = signals.signal(signals.SIGALRM, signals.default_int_handler)
    signals.setitimer(signals.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signals.setitimer(signals.ITIMER_REAL, 0)
        signals.signal(signals.SIGALRM, before)


def test_silence_stays_silence():
    assert not in_blocks(np.zeros((DATA.mels, 300), np.float32), 299 * DATA.hop_length, 8, 110).any()


def test_what_a_gpu_does_is_what_a_cpu_does(mel, signal):
    magnitude = mel_to_magnitude(mel, DATA.sample_rate, DATA.n_fft)[:, :200]
    samples = 199 * DATA.hop_length
    one = griffin_lim(magnitude, DATA.n_fft, DATA.hop_length, samples, 16, first=40)
    other = phase.griffin_lim_on(CPU, magnitude, DATA.n_fft, DATA.hop_length, samples, 16, first=40)
    assert 10 * np.log10(((one - other) ** 2).mean() / (one**2).mean()) < -60

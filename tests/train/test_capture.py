"""Which steps are launched as CUDA graphs, and what becomes of one that cannot be: `make gpu` tries the graphs themselves."""

import contextlib
import dataclasses

import pytest
import torch

from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import capture, checkpoint, networks
from p2p_dist.train.distributed import Ranks

CONFIG = dataclasses.replace(PRESETS["tiny"], model=dataclasses.replace(PRESETS["tiny"].model, dropout=0.5))
CPU = Ranks(0, 1, 0, torch.device("cpu"), None)
GPU = Ranks(0, 1, 0, torch.device("cuda:0"), None)


def is_captured(ranks, **train):
    return isinstance(capture.step_of(None, dataclasses.replace(CONFIG.train, **train), ranks), capture.Captured)


def test_a_step_is_captured_where_one_process_has_an_nvidia_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    assert is_captured(GPU)
    assert not is_captured(GPU, capture=False)
    assert not is_captured(GPU, micro_batch_size=2)
    assert not is_captured(CPU)
    assert not is_captured(dataclasses.replace(GPU, world_size=2))
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert not is_captured(GPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can capture")
def test_a_step_that_cannot_be_captured_trains_as_if_nobody_had_tried(capsys):
    random = torch.Generator().manual_seed(0)
    shape = (2, CONFIG.data.picture_channels, CONFIG.data.mels, CONFIG.data.frames)
    input, target = (torch.randn(shape, generator=random).clamp(-1, 1) for _ in range(2))
    noise = torch.randn(2, CONFIG.model.noise_channels, *shape[2:], generator=random) if CONFIG.model.noise_channels else None
    states = []
    for step_of in (
        lambda built: capture.step_of(built, CONFIG.train, CPU),
        lambda built: capture.Captured(built, CONFIG.train),
    ):
        built = networks.build(CONFIG, CPU)
        step = step_of(built)
        for seed in (5, 6):
            terms, flags = step(input, target, noise, seed)
        states.append([*checkpoint.tensors(built.state()), *terms.values(), flags])
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))
    assert capsys.readouterr().out.count("note: the step cannot be captured as a CUDA graph") == 1


def test_the_steps_taken_to_capture_are_undone(monkeypatch):
    """Without a GPU: they are taken, and then the capture itself is refused."""
    built = networks.build(CONFIG, CPU)
    shape = (2, CONFIG.data.picture_channels, CONFIG.data.mels, CONFIG.data.frames)
    batch = [torch.zeros(shape), torch.ones(shape), None, None]
    if CONFIG.model.noise_channels:
        batch[2] = torch.zeros(2, CONFIG.model.noise_channels, *shape[2:])
    before = [tensor.clone() for tensor in [*checkpoint.tensors(built.state()), built.bad]]
    step = capture.Captured(built, CONFIG.train)

    def steps(given):
        step.batch = given
        for _ in range(2):
            step.step()
        built.bad.fill_(1)
        built.discriminator.requires_grad_(False)
        assert not all(torch.equal(one, other) for one, other in zip(before, checkpoint.tensors(built.state()), strict=False))
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(step, "capture", steps)
    step.begin(batch)
    assert step.failed
    after = [*checkpoint.tensors(built.state()), built.bad]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(parameter.requires_grad for parameter in built.discriminator.parameters())


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_random_numbers_that_a_capture_broke_matter_where_there_are_any(monkeypatch, dropout):
    def fail(*_):
        raise RuntimeError("offset increment outside graph capture")

    built = networks.build(CONFIG, CPU)
    monkeypatch.setattr(built.generator, "dropout", dropout)
    monkeypatch.setattr(capture._RandomNumbers, "restore", fail)
    step = capture.Captured(built, CONFIG.train)
    monkeypatch.setattr(step, "capture", fail)
    with pytest.raises(ValueError, match=r"add --train\.no-capture") if dropout else contextlib.nullcontext():
        step.begin([])
    assert step.failed == (not dropout)

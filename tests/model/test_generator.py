"""Sizes, shapes and first weights of the networks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from p2p_dist.model.discriminator import Discriminator
from p2p_dist.model.generator import OPEN, BatchNorm, Generator, as_loud, doubling, moved
from p2p_dist.settings.presets import PRESETS
from tests.model.small import TINY

THESIS = PRESETS["thesis"].model


def small_thesis(**changed):
    return dataclasses.replace(THESIS, channels=4, max_channels=8, discriminator_channels=4, **changed)


@pytest.fixture
def without_values():
    """Networks of full size are made on torch's meta device, which takes no memory and no time."""
    with torch.device("meta"):
        yield


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_thesis_counts(without_values):
    """Keras's trainable parameters of the thesis's networks."""
    assert parameters(Generator(THESIS)) == 54_408_833
    assert parameters(Discriminator(THESIS)) == 2_764_545


@pytest.mark.parametrize(("name", "low", "high"), [("tiny", 0.3e6, 0.4e6), ("default", 15e6, 60e6)])
def test_sizes(without_values, name, low, high):
    settings = PRESETS[name].model
    assert low < parameters(Generator(settings)) + parameters(Discriminator(settings)) < high


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_shapes(without_values, name):
    settings, data = PRESETS[name].model, PRESETS[name].data
    generator, discriminator = Generator(settings), Discriminator(settings)
    picture = torch.zeros(2, 1, data.mels, data.frames)
    noise = torch.zeros(2, settings.noise_channels, data.mels, data.frames) if settings.noise_channels else None
    guided = settings.guide_channels(1)
    output = generator(picture, noise, torch.zeros(2, guided, data.mels, data.frames) if guided else None)
    judged = discriminator(picture, output)
    assert output.shape == picture.shape
    assert judged[-1].shape == (2, 1, data.mels // 8 - 2, data.frames // 8 - 2)
    if name == "thesis":
        assert judged[-1].shape[2:] == (30, 30)
    if settings.norm == "group":
        assert min(data.mels, data.frames) >> settings.depth > 1, "no 1 x 1 bottleneck"


def guided(**changed):
    return dataclasses.replace(TINY, sketch=True, beat_phase=True, **changed)


def test_a_guide_is_seen():
    torch.manual_seed(0)
    generator = Generator(guided())
    assert generator.down[0].convolution.in_channels == 1 + 1 + 3
    picture, noise, guide = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(3, 1, 3, 32, 32)
    guide[1, :, 0], guide[2, :, 2] = 0.5, 0.5
    outputs = [generator(picture, noise, one) for one in guide]
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    with pytest.raises(AssertionError):
        generator(picture, noise)


@pytest.mark.parametrize("upsample", ["folded", "nearest", "transposed"])
def test_a_residual_begins_as_the_sketch(upsample):
    generator = Generator(guided(residual=True, upsample=upsample))
    guide = torch.rand(2, 3, 32, 32) * 2 - 1
    output = generator(torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32), guide)
    assert torch.equal(output, guide[:, :1])
    (output - 0.3).square().mean().backward()
    assert next(generator.last.parameters()).grad.any()


def test_a_residual_moves_the_sketch_between_the_ends_of_the_scale():
    sketch = torch.tensor([-1.0, -0.4, 0.5, 1.0]).view(1, 1, 4, 1)
    for by, wanted in ((1.0, [1, 1, 1, 1]), (-1.0, [-1] * 4), (0.0, [-1, -0.4, 0.5, 1]), (0.5, [0, 0.3, 0.75, 1])):
        found = moved(sketch, torch.full((1, 1, 4, 1), by))
        assert found.flatten().tolist() == pytest.approx(wanted, abs=1e-6), by


def test_a_silent_frame_of_the_sketch_stays_silent():
    sketch = torch.full((1, 2, 4, 3), -1.0)
    sketch[0, 1, 2, 1] = -1 + OPEN / 2  # a quiet frame, in one band of one channel
    sketch[0, 0, 0, 2] = -1 + OPEN
    found = moved(sketch, torch.ones(1, 2, 4, 3))
    assert (found[..., 0] == -1).all()
    assert found[0, 0, 0, 1].item() == pytest.approx(0), "half open"
    assert (found[..., 2] == 1).all()


def test_a_window_is_made_as_loud_as_its_sketch():
    """The mean power of each window of the batch, in dB over the 105 that a picture spans."""

    def loudness(picture):
        return 10 * (10 ** (52.5 / 10 * (picture.double() - 1))).mean(dim=(1, 2, 3)).log10()

    random = torch.Generator().manual_seed(0)
    sketch = torch.rand(3, 2, 8, 16, generator=random) * 1.4 - 0.9
    sketch[..., :4], sketch[2] = -1, -1
    output = torch.where(
        sketch > -1, torch.rand(3, 2, 8, 16, generator=random) * torch.tensor([1.0, 1.7, 1]).view(3, 1, 1, 1) - 1, -1
    )
    found = as_loud(output, sketch)
    assert (loudness(output) - loudness(sketch))[:2].abs().min() > 2
    torch.testing.assert_close(loudness(found), loudness(sketch), atol=0.05, rtol=0)
    assert (found[..., :4] == -1).all() and (found[2] == -1).all(), "silence stays"
    moved_by = (found - output)[0, :, :, 4:]
    assert torch.allclose(moved_by, moved_by.mean(), atol=1e-5), "one gain for the whole window"
    peak = torch.full((1, 1, 4, 4), -1.0)
    peak[0, 0, 1, 2] = 0.9
    assert as_loud(peak, torch.full((1, 1, 4, 4), 0.9)).max() == 1, "no bin is louder than the scale"
    generator = Generator(guided(residual=True, keep_level=True))
    guide = torch.rand(2, 3, 32, 32, generator=random) * 2 - 1
    nothing = torch.zeros(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(generator(nothing, nothing, guide), guide[:, :1], atol=1e-5, rtol=0)
        generator.last[-1].bias.fill_(-0.3)
        quieter = generator(nothing, nothing, guide)
        generator.keep_level = False
        assert (loudness(generator(nothing, nothing, guide)) - loudness(guide[:, :1])).max() < -5
    torch.testing.assert_close(loudness(quieter), loudness(guide[:, :1]), atol=0.1, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_folded_doubling_is_the_nearest_neighbour_and_a_convolution(bias):
    random = torch.Generator().manual_seed(0)
    nearest, folded = (doubling(3, 5, kind, bias).double() for kind in ("nearest", "folded"))
    folded.load_state_dict(nearest.state_dict())
    x = torch.randn(2, 3, 4, 7, generator=random, dtype=torch.float64, requires_grad=True)
    answers = []
    for module in (nearest, folded):
        output = module(x)
        gradients = torch.autograd.grad((output * output.detach().cos()).sum(), [x, *module.parameters()])
        answers.append([output, *gradients])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_folded_doubling_pools_contiguous_weights(monkeypatch):
    """Weights in channels_last had wrong gradients on a GPU: torch's kernel forgets the padding there, and only there."""
    pooled, honest = [], torch.nn.functional.avg_pool2d
    monkeypatch.setattr(
        torch.nn.functional,
        "avg_pool2d",
        lambda weights, *how, **more: (pooled.append(weights), honest(weights, *how, **more))[1],
    )
    folded = doubling(3, 5, "folded", bias=False).to(memory_format=torch.channels_last)
    assert not folded[1].weight.is_contiguous()
    folded(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
    assert [weights.is_contiguous() for weights in pooled] == [True]


def test_folded_doubling_sums_weights_in_full_precision():
    folded = doubling(1, 1, "folded", bias=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        folded[1].weight.copy_(torch.tensor([1, -1 - 2**-10, 0, 0, 0, 0, 0, 0, 0]).view(1, 1, 3, 3))
        output = folded(torch.ones(1, 1, 1, 1))
    assert float(output[0, 0, 1, 1]) == -(2**-10), "rounded to bf16 first, the weights would cancel"


def test_other_shapes_than_square():
    generator = Generator(TINY)
    output = generator(torch.zeros(3, 1, 16, 48), torch.zeros(3, 1, 16, 48))
    assert output.shape == (3, 1, 16, 48)


def test_first_weights():
    torch.manual_seed(0)
    for module in (Generator(THESIS), Discriminator(THESIS)):
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                share = part.weight.std().item() / 0.02
                assert abs(share - 1) < 6 / math.sqrt(part.weight.numel())
                assert part.bias is None or not part.bias.any()
            elif isinstance(part, BatchNorm):
                assert part.weight.eq(1).all() and part.bias.eq(0).all()


def test_names_and_shapes_alone_are_not_initialised(monkeypatch):
    """What an exported model's weights are compared with. If it failed: torch imports its compiler, a second more to wait."""
    monkeypatch.delattr(nn.init, "normal_")
    with torch.device("meta"):
        assert len(Generator(THESIS).state_dict()) > 20
    with pytest.raises(AttributeError):
        Generator(TINY)


def test_only_the_last_convolution_of_the_thesis_has_a_bias(without_values):
    biased = {name for name, _ in Generator(THESIS).named_parameters() if name.endswith("bias") and "norm" not in name}
    assert biased == {"last.bias"}
    assert [part.eps for part in Generator(THESIS).modules() if isinstance(part, BatchNorm)] == [1e-3] * 14


def test_keras_constants(without_values):
    assert (THESIS.leaky_slope, THESIS.dropout, PRESETS["thesis"].train.epsilon) == (0.3, 0.5, 1e-7)
    dropped = [up.dropout for up in Generator(THESIS).up]
    assert dropped == [0.5, 0.5, 0.5, 0, 0, 0, 0]


def test_batch_norm_on_the_batch_in_any_mode():
    """Row 23: batch norm of running statistics, at evaluation.

    Seen: black or blurred pictures with `.eval()`.
    Now: the same answer in train and eval mode, from the batch itself, and no buffer to drift apart on ranks.
    """
    norm = BatchNorm(3)
    x = torch.randn(4, 3, 5, 5)
    wanted = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x), wanted)
    assert torch.equal(norm.eval()(x), norm.train()(x))
    assert not list(norm.buffers())


def test_batch_norm_of_a_single_value():
    """Keras answers beta where torch refuses; gamma gets a gradient of 0, else DDP would wait for it."""
    norm = BatchNorm(3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    answer = norm(torch.randn(1, 3, 1, 1))
    assert answer.flatten().tolist() == [1, 2, 3]
    answer.sum().backward()
    assert norm.weight.grad is not None and not norm.weight.grad.any()
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(3)(torch.randn(1, 3, 1, 1))


def test_every_thesis_parameter_has_a_gradient_at_batch_1():
    torch.manual_seed(0)
    generator = Generator(small_thesis())
    generator(torch.randn(1, 1, 256, 256)).sum().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())


def test_noise_changes_the_picture_and_its_absence_does_not():
    generator = Generator(TINY)
    picture = torch.randn(1, 1, 32, 32)
    noise = torch.randn(2, 1, 1, 32, 32)
    assert not torch.equal(generator(picture, noise[0]), generator(picture, noise[1]))
    assert torch.equal(generator(picture, noise[0]), generator(picture, noise[0]))


def test_samples_of_a_batch_do_not_see_each_other():
    """What makes 2 ranks x 4 equal 1 rank x 8; the thesis's batch norm does not have it."""
    torch.manual_seed(0)
    pictures, noise = torch.randn(3, 1, 32, 32), torch.randn(3, 1, 32, 32)
    generator = Generator(TINY)
    together = generator(pictures, noise)
    alone = torch.cat([generator(pictures[i : i + 1], noise[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    batched = Generator(dataclasses.replace(TINY, norm="batch"))
    together = batched(pictures, noise)
    alone = torch.cat([batched(pictures[i : i + 1], noise[i : i + 1]) for i in range(3)])
    assert (together - alone).abs().max() > 1e-3

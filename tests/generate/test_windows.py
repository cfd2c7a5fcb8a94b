"""Windows and stem power in a stream are those of the whole song: in training, and in evaluation, which hold it in memory."""

import dataclasses

import numpy as np
import pytest
import torch

from p2p_dist.audio.spectrogram import frame_count
from p2p_dist.data import pairs
from p2p_dist.generate import inference, windows
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Config
from p2p_dist.settings.presets import preset

RATE = 22050
CPU = torch.device("cpu")


def small(**changes) -> Config:
    config = preset("tiny")
    data = dataclasses.replace(config.data, **changes)
    model = dataclasses.replace(config.model, noise_channels=0)
    return dataclasses.replace(config, data=data, model=model)


def noises(seconds, channels=2):
    random = np.random.default_rng(5)
    fade = np.linspace(1, 0.01, int(seconds * RATE))[:, None]
    return (random.standard_normal((len(fade), channels)) * fade * 0.2).astype(np.float32)


def blocks(sound, size=1000):
    return (sound[start : start + size] for start in range(0, len(sound), size))


def heard(song, config):
    mid = song.mean(axis=1)
    return mid[:, None] if config.data.channels == "mono" else np.stack([mid, (song[:, 0] - song[:, 1]) / 2], axis=1)


@pytest.mark.parametrize("size", [1, 999, 4096, 10**6])
def test_spectrogram_in_a_stream(size):
    config = small()
    song = noises(0.3 if size == 1 else 2.0)
    parts = list(windows.mels(blocks(heard(song, config), size), config.data))
    assert np.array_equal(np.concatenate(parts, axis=2)[0], pairs.mel_of(song, RATE, config.data))


def test_the_last_frame_of_a_spectrogram_is_not_left_out():
    """Where after a block of frames the samples of just one more are left."""
    config = small()
    song = noises(64 * config.data.hop_length / RATE)
    found = np.concatenate(list(windows.mels(blocks(heard(song, config)), config.data)), axis=2)
    assert found.shape[2] == frame_count(len(song), config.data.hop_length) == 65


@pytest.mark.parametrize("channels", ["mono", "mid-side"])
@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.5, 3.21])
def test_windows_are_those_of_training(seconds, channels):
    config = small(channels=channels)
    song = noises(seconds)
    true = pairs.make(song, song, RATE, config.data)
    found = list(windows.windows(blocks(heard(song, config)), len(song), true.references[0], config.data))
    assert [one.start for one in found] == list(true.starts)
    for one, picture in zip(found, true.inputs, strict=True):
        assert np.allclose(one.picture.astype(np.float32), picture.astype(np.float32), atol=0.07)


def test_windows_of_the_thesis():
    config = small(representation="thesis", window_hop=16)
    song = noises(2.0)
    true = pairs.make(song, np.zeros_like(song), RATE, config.data)
    found = list(windows.windows(blocks(heard(song, config)), len(song), 0.0, config.data))
    assert [one.start for one in found][: len(true.starts)] == list(true.starts)
    assert found[-1].start + config.data.frames >= frame_count(len(song), config.data.hop_length), "the end is not left out"
    for one, picture, reference in zip(found, true.inputs, true.references, strict=False):
        assert np.array_equal(one.picture, picture) and one.reference == pytest.approx(reference)


def test_training_windows_that_hardly_overlap_are_generated_overlapping_by_half():
    config = small(window_hop=32)
    assert list(windows.starts(65, config.data)) == [0, 16, 32, 48]


def test_level_reference_of_a_stream():
    power = np.random.default_rng(0).lognormal(0, 3, (32, 5000)).astype(np.float32)
    counted = windows.Loudness()
    for start in range(0, 5000, 700):
        counted.add(power[:, start : start + 700])
    assert 10 * np.log10(counted.reference() / pairs.level_reference(power)) == pytest.approx(0, abs=0.01)
    silence = windows.Loudness()
    silence.add(np.zeros((32, 10), np.float32))
    assert silence.reference() == pairs.level_reference(np.zeros((32, 10), np.float32))


@pytest.mark.parametrize(("representation", "norm"), [("default", "group"), ("thesis", "group"), ("default", "batch")])
def test_stem_power_is_that_of_evaluation(representation, norm):
    config = small(representation=representation)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, norm=norm))
    torch.manual_seed(0)
    generator = Generator(config.model)
    song = noises(3.0)
    pictures = pairs.make(song, np.zeros_like(song), RATE, config.data)
    true = pairs.stitch(inference.generate(generator, pictures, config.data, "song"), pictures, config.data)
    found = windows.windows(blocks(heard(song, config)), len(song), float(pictures.references[0]), config.data)
    times = {"network": 0.0}
    frames = frame_count(len(song), config.data.hop_length)
    power = np.concatenate(list(windows.stem_power(generator, found, frames, config.data, config.model, 0, times)), axis=2)
    assert power.shape == (1, config.data.mels, frames) and times["network"] > 0
    end = int(pictures.starts[-1]) if representation == "thesis" else frames  # where evaluation's last window begins to fade
    assert np.allclose(power[..., :end], true[..., :end], rtol=1e-3, atol=1e-6 * true.max())


def test_takes_differ_by_the_drop_out_alone():
    """As in the thesis, which has no noise beside the pictures."""
    config = small()
    model = dataclasses.replace(config.model, dropout=0.5)
    generator, song = Generator(model), noises(1.0)

    def power(seed):
        found = windows.windows(blocks(heard(song, config)), len(song), 1.0, config.data)
        frames = frame_count(len(song), config.data.hop_length)
        parts = windows.stem_power(generator, found, frames, config.data, model, seed, {"network": 0.0})
        return np.concatenate(list(parts), axis=2)

    one = power(1)
    assert np.array_equal(power(1), one) and not np.allclose(power(2), one)


def test_noise_belongs_to_the_frame():
    one, other = windows.Noise(2, 8, seed=3), windows.Noise(2, 8, seed=3)
    whole = one.cut(0, 700)
    for start in (0, 100, 250, 256, 600):
        assert torch.equal(other.cut(start, 100), whole[..., start : start + 100])
        assert len(other.drawn) <= 2, "what is behind is not kept"
    assert not torch.equal(windows.Noise(2, 8, seed=4).cut(0, 100), whole[..., :100])
    assert whole.std() == pytest.approx(1, abs=0.05)

"""From windows to a stem: stitched without seams, at the right place and level, the same for every checkpoint."""

import dataclasses

import numpy as np
import pytest
import torch

from p2p_dist.audio.spectrogram import mel_power
from p2p_dist.audio.stems import mono
from p2p_dist.data import pairs
from p2p_dist.generate import inference
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Config
from p2p_dist.settings.presets import preset

RATE = 44100


def small(**changes) -> Config:
    config = preset("tiny")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def hits(times, seconds):
    """(samples, 2) of noise bursts."""
    random = np.random.default_rng(0)
    sound = np.zeros((int(seconds * RATE), 2), np.float32)
    for time in times:
        start = int(time * RATE)
        length = min(6000, len(sound) - start)
        sound[start : start + length] += (random.standard_normal(6000) * np.exp(-np.arange(6000) / 900))[:length, None] * 0.3
    return sound


@pytest.fixture(scope="module")
def song():
    random = np.random.default_rng(3)
    heard = (random.standard_normal((4 * RATE, 2)) * 0.05).astype(np.float32)
    return heard, hits([0.5, 1.5, 2.6, 3.1], 4)


def test_the_true_pictures_give_the_true_stem_back(song):
    """Windows overlap by half: stitching must neither double nor halve what they share."""
    config = small(mels=64)
    heard, drums = song
    pictures = pairs.make(heard, drums, RATE, config.data)
    whole = inference.to_stem(pictures.targets, pictures, heard, RATE, config.data, config.evaluate.iterations)
    assert whole.shape == heard.shape
    power = [float((mono(sound, RATE, 22050) ** 2).sum()) for sound in (whole, drums)]  # above 11 kHz there is no picture
    assert 0.75 < power[0] / power[1] < 1.25
    mel = [mel_power(sound.mean(axis=1), RATE, 2048, 512, 32).sum(axis=0) for sound in (whole, drums)]
    assert np.corrcoef(*mel)[0, 1] > 0.9


def test_what_is_on_the_left_stays_on_the_left(song):
    config = small(channels="mid-side")
    heard, drums = song
    pictures = pairs.make(heard, drums * np.array([1, 0], np.float32), RATE, config.data)
    left, right = inference.to_stem(pictures.targets, pictures, heard, RATE, config.data, 4).T
    assert (left**2).mean() > 100 * (right**2).mean()


def test_stitched_overlaps_equal_the_song_itself(song):
    config = small()
    heard, drums = song
    pictures = pairs.make(heard, drums, RATE, config.data)
    stitched = pairs.stitch(pictures.targets, pictures, config.data)[0]
    true = pairs.mel_of(drums, RATE, config.data)
    assert stitched.shape == true.shape
    reference = pictures.references[0]
    audible = true > reference * 1e-6
    assert np.allclose(10 * np.log10(stitched[audible] / true[audible]), 0, atol=0.2), "float16 is 0.03 dB"
    assert stitched[true < reference * 1e-9].max() == 0, "silence is nothing, not a noise at the floor"


def test_the_loudest_part_is_found(song):
    config = small()
    heard, _ = song
    drums = hits([2.5, 2.7, 2.9], 4)
    pictures = pairs.make(heard, drums, RATE, config.data)
    part = inference.loudest_windows(pictures, 1.0, config.data)
    begins = part.starts[0] * config.data.hop_length / config.data.sample_rate
    ends = part.frames * config.data.hop_length / config.data.sample_rate
    assert 0.8 < ends - begins < 1.2
    assert begins < 2.5 and ends > 2.9
    assert len(inference.loudest_windows(pictures, 0, config.data).starts) == len(pictures.starts)
    assert len(inference.loudest_windows(pictures, 100, config.data).starts) == len(pictures.starts)


def test_generation_is_repeatable_and_hears_its_noise(song):
    config = small()
    heard, drums = song
    pictures = inference.loudest_windows(pairs.make(heard, drums, RATE, config.data), 1.0, config.data)
    torch.manual_seed(0)
    generator = Generator(config.model)
    outputs = inference.generate(generator, pictures, config.data, "song")
    assert outputs.shape == pictures.targets.shape
    assert outputs.min() >= pairs.FLOOR - 1e-3 and outputs.max() <= pairs.CEILING["default"] + 1e-3
    torch.manual_seed(99)
    assert np.array_equal(outputs, inference.generate(generator, pictures, config.data, "song")), "not of any state around it"
    assert not np.array_equal(outputs, inference.generate(generator, pictures, config.data, "another song"))
    assert not np.array_equal(outputs, inference.generate(generator, pictures, config.data, "song", seed=1))


def test_the_thesis_representation_finds_the_stem_in_the_mix(song):
    """Its pictures show the mix; what rises above the input is the stem."""
    config = preset("thesis")
    heard, drums = song
    pictures = pairs.make(heard, drums, RATE, config.data)
    stem = inference.to_stem(pictures.targets, pictures, heard, RATE, config.data, config.evaluate.iterations)
    mel = [mel_power(sound.mean(axis=1), RATE, 2048, 512, 32).sum(axis=0) for sound in (stem, drums)]
    assert np.corrcoef(*mel)[0, 1] > 0.8

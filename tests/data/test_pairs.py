"""Pairs of pictures: levels, windows, padding, the way back, and the thesis's own definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_dist.audio.spectrogram import frame_count
from p2p_dist.data import pairs
from p2p_dist.settings.config import STEMS, Data, parse_task
from p2p_dist.settings.presets import preset
from tests.decode import Song


def sound(seconds: float, rate: int = 22050, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.uniform(-0.3, 0.3, (round(seconds * rate), 2)).astype(np.float32)


@given(st.integers(1, 5000), st.integers(1, 300), st.data())
def test_windows_cover_every_frame_of_a_song(frames: int, width: int, data: st.DataObject) -> None:
    hop = data.draw(st.integers(1, width))
    starts = pairs.window_starts(frames, Data(frames=width, window_hop=hop))
    assert starts[0] == 0 and (np.diff(starts) == hop).all()
    assert starts[-1] + width >= frames
    assert len(starts) == 1 or starts[-2] + width < frames


@given(st.integers(1, 5000), st.integers(1, 300))
def test_the_thesis_drops_what_is_left_after_the_last_whole_window(frames: int, width: int) -> None:
    starts = pairs.window_starts(frames, Data(representation="thesis", frames=width, window_hop=width))
    assert len(starts) == max(1, frames // width)


def test_a_task_sums_its_stems() -> None:
    song = Song("s", 8000, {name: np.full((4, 1), 10.0**n, np.float32) for n, name in enumerate(STEMS)})
    heard, made = map(song.sum_of, parse_task("vocals+other->bass"))
    assert heard[0, 0] == 1100 and made[0, 0] == 10


@pytest.mark.parametrize("seconds", [0.01, 0.2, 1.0, 2.0])
def test_shapes_and_padding_of_songs_of_any_length(small: Data, seconds: float) -> None:
    made = pairs.make(sound(seconds), sound(seconds, seed=1), 22050, small)
    assert made.inputs.shape == made.targets.shape == (len(made.starts), 1, 32, 32)
    assert made.inputs.dtype == np.float16
    assert made.frames == frame_count(round(seconds * 22050), small.hop_length)
    beyond = int(made.starts[-1]) + 32 - made.frames
    if beyond > 0:
        assert (made.inputs[-1, ..., -beyond:] == pairs.FLOOR).all()
        assert (made.targets[-1, ..., -beyond:] == pairs.FLOOR).all()


def test_windows_are_cut_from_the_picture_of_the_whole_song(small: Data) -> None:
    song, target = sound(2.0), sound(2.0, seed=1)
    made = pairs.make(song, target, 22050, small)
    whole = pairs.to_picture(pairs.mel_of(target, 22050, small), float(made.references[0]), "default")
    for window, start in zip(made.targets, made.starts, strict=True):
        cut = whole[:, start : start + 32]
        np.testing.assert_array_equal(window[0, :, : cut.shape[1]], cut)


def test_input_and_target_keep_their_relation_in_level(small: Data) -> None:
    """A target 20 dB down is 20 dB lower in its picture, at one reference that is the input's alone."""
    song = sound(1.0)
    loud, quiet = pairs.make(song, song, 22050, small), pairs.make(song, 0.1 * song, 22050, small)
    np.testing.assert_array_equal(loud.references, quiet.references)
    np.testing.assert_allclose((loud.targets.astype(np.float32) - quiet.targets)[:-1], 20, atol=0.1)  # the last is padded


def test_silence_does_not_become_noise_at_full_scale(small: Data) -> None:
    made = pairs.make(np.zeros((22050, 2), np.float32), 1e-6 * sound(1.0), 22050, small)
    assert (made.inputs == pairs.FLOOR).all() and made.targets.max() < -50


def test_one_click_does_not_move_the_reference(small: Data) -> None:
    song = sound(30.0)
    clicked = song.copy()
    clicked[10000] = 1.0
    references = [pairs.make(part, song, 22050, small).references[0] for part in (song, clicked)]
    assert abs(10 * np.log10(references[1] / references[0])) < 1


def test_thesis_windows_are_the_thesis_definition() -> None:
    """255 hops by themselves, librosa's mel spectrogram, its own maximum as 0 dB, 80 dB range; the target is the mix."""
    from tests.uncompiled import librosa

    data = preset("thesis").data
    song, target = sound(13.0), sound(13.0, seed=1)
    made = pairs.make(song, target, 22050, data)
    assert made.starts.tolist() == [0, 255]
    for signal, pictures in ((song, made.inputs), (song + target, made.targets)):
        for number, picture in enumerate(pictures):
            part = signal.mean(axis=1)[number * 130560 : (number + 1) * 130560]
            mel = librosa.feature.melspectrogram(y=part, sr=22050, n_fft=2048, hop_length=512, n_mels=256)
            expected = librosa.power_to_db(mel, ref=np.max)
            assert expected.shape == (256, 256)
            np.testing.assert_allclose(picture[0].astype(np.float32), expected, atol=0.05)


@pytest.mark.parametrize("seconds", [0.3, 2.0, 3.3])
def test_stitched_windows_are_the_power_of_the_whole_song(small: Data, seconds: float) -> None:
    song, target = sound(seconds), sound(seconds, seed=1)
    made = pairs.make(song, target, 22050, small)
    power = pairs.stitch(made.targets.astype(np.float32), made, small)[0]
    expected = pairs.mel_of(target, 22050, small)
    assert power.shape == expected.shape
    np.testing.assert_allclose(10 * np.log10(power), 10 * np.log10(expected), atol=0.1)


def test_windows_that_differ_are_cross_faded(small: Data) -> None:
    """Where two overlap, each counts by how far it is from its own end: no step in level where one begins or ends."""
    frames, hop = small.frames, small.window_hop
    made = pairs.make(sound(1.0), sound(1.0), 22050, small)
    made = replace(made, starts=np.array([0, hop]), references=np.ones(2), frames=frames + hop)
    made = replace(made, inputs=made.inputs[:2], targets=made.targets[:2])
    outputs = np.zeros((2, 1, small.mels, frames), np.float32)
    outputs[1] = -20.0
    power = pairs.stitch(outputs, made, small)[0, 0]
    overlap = frames - hop
    first = np.minimum(frames - np.arange(hop, frames), np.arange(hop, frames) + 1)
    second = np.minimum(np.arange(overlap) + 1, frames - np.arange(overlap))
    expected = (first * 1.0 + second * 0.01) / (first + second)
    np.testing.assert_allclose(power[:hop], 1.0, rtol=1e-5)
    np.testing.assert_allclose(power[hop:frames], expected, rtol=1e-5)
    np.testing.assert_allclose(power[frames:], 0.01, rtol=1e-5)
    assert power[hop] > 0.9 and power[frames - 1] < 0.1


def test_the_thesis_stem_is_what_rises_above_the_input(small: Data) -> None:
    data = replace(small, representation="thesis")
    made = pairs.make(sound(2.0), sound(2.0, seed=1), 22050, data)
    assert (pairs.stitch(made.inputs.astype(np.float32), made, data) == 0).all()


@pytest.mark.parametrize(("loudest", "silent"), [(-80.0, True), (-79.5, True), (-79.4375, False), (-0.0, False), (3.0, False)])
def test_a_window_is_silent_where_nothing_rises_over_half_a_db(loudest: float, silent: bool, small: Data) -> None:
    """The edge itself and the next number of float16 above it, in one bin of the last window of three."""
    targets = np.full((3, 1, small.mels, small.frames), pairs.FLOOR, np.float16)
    targets[2, 0, -1, -1] = loudest
    made = pairs.Pictures(targets, targets, np.arange(3) * small.window_hop, np.ones(3), 3 * small.window_hop)
    found = pairs.silent_windows(made, np.zeros((0, 1), np.float32), small.sample_rate, small)
    assert found.tolist() == [True, True, silent]


def test_mid_and_side_are_mean_and_half_difference(small: Data) -> None:
    data = replace(small, channels="mid-side")
    random = np.random.default_rng(0)
    left, right = random.uniform(-0.3, 0.3, (2, 22050)).astype(np.float32)
    powers = pairs.powers_of(np.stack([left, right], axis=1), 22050, data)
    np.testing.assert_allclose(powers[0], pairs.mel_of(((left + right) / 2)[:, None], 22050, data), rtol=1e-4)
    np.testing.assert_allclose(powers[1], pairs.mel_of(((left - right) / 2)[:, None], 22050, data), rtol=1e-4)
    assert (pairs.powers_of(left[:, None], 22050, data)[1] == 0).all()
    assert (pairs.powers_of(np.stack([left, left], axis=1), 22050, data)[1] == 0).all()

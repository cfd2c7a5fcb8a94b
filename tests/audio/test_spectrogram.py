"""librosa's numbers, by another way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_dist.audio import layouts, musdb18, spectrogram, stems
from p2p_dist.settings.config import Data
from tests import decode
from tests.uncompiled import librosa

SETTINGS = [(22050, 1024, 256, 128), (22050, 2048, 512, 256), (44100, 2048, 512, 128), (22050, 1024, 512, 64)]


def music(samples, seed=0):
    """Decaying noise hits over a chord: loud and quiet, low and high."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 22050
    chord = sum(np.sin(2 * np.pi * f * time) for f in (110, 220, 331)) * 0.1
    hits = random.standard_normal(samples) * np.exp(-((time * 4) % 1) * 20)
    return (chord + 0.3 * hits).astype(np.float32)


@pytest.mark.parametrize(("rate", "n_fft", "hop", "mels"), SETTINGS)
def test_log_mel_equals_librosas(rate, n_fft, hop, mels):
    signal = music(70_001)
    wanted = librosa.feature.melspectrogram(
        y=signal, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=mels, pad_mode="constant", power=2.0
    )
    got = spectrogram.mel_power(signal, rate, n_fft, hop, mels)
    assert got.shape == wanted.shape == (mels, spectrogram.frame_count(len(signal), hop))
    wanted_db = librosa.power_to_db(wanted, ref=1.0, top_db=None)
    far = np.abs(spectrogram.power_to_db(got) - wanted_db)
    # Between silent hits this signal goes down to the rounding of float32 itself, 110 dB under its peak.
    assert far[wanted_db > wanted_db.max() - 90].max() < 0.005


def test_log_mel_of_real_drums_equals_librosas_all_the_way_down():
    drums = decode.load(layouts.source_at(musdb18.excerpt_file(), "train"), ["drums"]).stems["drums"]
    signal = stems.mono(drums, 44100, 22050)
    wanted = librosa.feature.melspectrogram(y=signal, sr=22050, n_fft=1024, hop_length=256, n_mels=128, pad_mode="constant")
    got = spectrogram.mel_power(signal, 22050, 1024, 256, 128)
    assert np.abs(spectrogram.power_to_db(got) - librosa.power_to_db(wanted, ref=1.0, top_db=None)).max() < 0.005


@pytest.mark.parametrize("lowest", [0.0, 30.0])
def test_the_filters_are_librosas(lowest):
    wanted = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=64, fmin=lowest)
    assert np.allclose(spectrogram.mel_filters(22050, 1024, 64, lowest).toarray(), wanted, atol=1e-8)


def test_blocks_do_not_show(monkeypatch):
    signal = music(50_000)
    whole = spectrogram.mel_power(signal, 22050, 1024, 256, 64)
    monkeypatch.setattr(spectrogram, "_BLOCK", 7)
    assert np.array_equal(whole, spectrogram.mel_power(signal, 22050, 1024, 256, 64))


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-9, 1e6), st.floats(1e-6, 1e6))
def test_decibels_and_back(power, reference):
    array = np.array([[power]], np.float32)
    back = spectrogram.db_to_power(spectrogram.power_to_db(array, reference), reference)
    assert back[0, 0] == pytest.approx(power, rel=1e-3)


def test_silence_has_a_floor():
    assert spectrogram.power_to_db(np.zeros((1, 1)))[0, 0] == -100
    assert np.isfinite(spectrogram.power_to_db(np.zeros((1, 1)), 0.0)).all()


@pytest.mark.parametrize(("rate", "n_fft"), [(22050, 1024), (44100, 2048), (16000, 512), (4000, 256)])
def test_the_most_mels_that_are_allowed_leave_no_band_empty(rate, n_fft):
    most = Data(sample_rate=rate, n_fft=n_fft, hop_length=128, mels=1)._most_mels()
    assert (spectrogram.mel_filters(rate, n_fft, most).sum(axis=1) > 0).all()
    assert (spectrogram.mel_filters(rate, n_fft, most * 5 // 3).sum(axis=1) == 0).any(), "not far from as many as there can be"


def test_a_frequency_has_its_place_at_the_peak_of_a_band():
    filters = spectrogram.mel_filters(44100, 8192, 128).toarray()
    for band in (20, 64, 120):
        peak = filters[band].argmax() * 44100 / 8192
        assert spectrogram.band_of(peak, 44100, 128) == pytest.approx(band, abs=0.1)

"""From mel power to sound: as good as librosa, of the right length, never part of the player's own sound."""

import numpy as np
import pytest

from p2p_dist.audio import invert, spectrogram
from tests.uncompiled import librosa

RATE, N_FFT, HOP, MELS = 22050, 1024, 256, 128


@pytest.fixture(scope="module")
def hits():
    random = np.random.default_rng(1)
    time = np.arange(2 * RATE) / RATE
    return (random.standard_normal(len(time)) * np.exp(-((time * 4) % 1) * 25) * 0.3).astype(np.float32)


def error_db(signal, wanted):
    """Mean absolute error of the log-mel spectrogram over 80 dB."""
    got = spectrogram.power_to_db(spectrogram.mel_power(signal, RATE, N_FFT, HOP, MELS))
    wanted = spectrogram.power_to_db(wanted)
    floor = wanted.max() - 80
    return np.abs(np.maximum(got, floor) - np.maximum(wanted, floor)).mean()


def test_the_mel_of_the_magnitudes_is_the_mel_asked_for(hits):
    mel = spectrogram.mel_power(hits, RATE, N_FFT, HOP, MELS)
    magnitude = invert.mel_to_magnitude(mel, RATE, N_FFT)
    assert magnitude.shape == (N_FFT // 2 + 1, mel.shape[1]) and (magnitude >= 0).all()
    ours = np.abs(spectrogram.mel_filters(RATE, N_FFT, MELS) @ magnitude**2 - mel).sum()
    librosas = librosa.feature.inverse.mel_to_stft(mel, sr=RATE, n_fft=N_FFT)
    theirs = np.abs(spectrogram.mel_filters(RATE, N_FFT, MELS) @ librosas**2 - mel).sum()
    assert ours < 0.02 * mel.sum() or ours < 1.1 * theirs


def test_it_sounds_no_further_from_the_truth_than_librosas(hits):
    mel = spectrogram.mel_power(hits, RATE, N_FFT, HOP, MELS)
    ours = invert.mel_to_audio(mel, RATE, N_FFT, HOP, len(hits), 16)
    theirs = librosa.griffinlim(
        librosa.feature.inverse.mel_to_stft(mel, sr=RATE, n_fft=N_FFT),
        n_iter=16,
        hop_length=HOP,
        length=len(hits),
        random_state=0,
    )
    assert ours.shape == hits.shape and ours.dtype == np.float32
    assert error_db(ours, mel) < 1.05 * error_db(theirs, mel)


def test_momentum_and_iterations_help(hits, monkeypatch):
    mel = spectrogram.mel_power(hits, RATE, N_FFT, HOP, MELS)
    good = error_db(invert.mel_to_audio(mel, RATE, N_FFT, HOP, len(hits), 32), mel)
    few = error_db(invert.mel_to_audio(mel, RATE, N_FFT, HOP, len(hits), 2), mel)
    monkeypatch.setattr(invert, "MOMENTUM", 0.0)
    plain = error_db(invert.mel_to_audio(mel, RATE, N_FFT, HOP, len(hits), 32), mel)
    assert good < plain < few


def test_the_same_seed_gives_the_same_sound(hits):
    magnitude = np.abs(invert.stft(hits, N_FFT, HOP)).T
    one, two, other = (invert.griffin_lim(magnitude, N_FFT, HOP, len(hits), 3, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize("samples", [1, 255, 256, 5000, 5121])
def test_istft_undoes_stft(samples):
    signal = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    back = invert.istft(invert.stft(signal, N_FFT, HOP), N_FFT, HOP, samples)
    assert back.shape == signal.shape
    # The very edge lies under one tail of a window only.
    assert np.allclose(back[: samples - HOP], signal[: samples - HOP], atol=1e-4)


def test_silence_stays_silence():
    mel = np.zeros((MELS, 20), np.float32)
    assert not invert.mel_to_audio(mel, RATE, N_FFT, HOP, 5000, 4).any()


@pytest.mark.parametrize(("rate", "channels", "samples"), [(44100, 2, 10_000), (48000, 1, 9_999), (22050, 6, 5_000)])
def test_a_stem_fits_the_song_it_is_for(rate, channels, samples):
    song = np.zeros((samples, channels), np.float32)
    tone = np.sin(np.arange(5_000) * 0.1).astype(np.float32)
    stem = invert.stem_for(song, rate, tone, RATE)
    assert stem.shape == song.shape and stem.dtype == np.float32
    assert all(np.array_equal(stem[:, 0], stem[:, c]) for c in range(channels))
    assert np.abs(stem).max() > 0.9

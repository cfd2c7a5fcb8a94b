"""Measures of whole spectrograms: equal to the libraries that have them, and what they say of known faults."""

import auraloss
import numpy as np
import pytest
import torch
import torchmetrics.functional

from p2p_dist.evaluate.measures import onsets, spectral
from tests.uncompiled import librosa

RATE = spectral.RATE


def sound(seed, seconds=2.0):
    """Tones that change and hits of noise, silent at both ends: what libraries put before the first sample is nothing."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in random.choice([220, 247, 277, 330, 440, 494], 3, replace=False))
    signal = 0.1 * tones * (np.sin(2 * np.pi * 2 * time) > 0) + 0.2 * random.standard_normal(len(time)) * np.exp(
        -20 * (time % 0.3)
    )
    signal[:2048] = signal[-2048:] = 0
    return signal.astype(np.float32)


A, B = sound(0), sound(1)


def test_log_mel_is_librosas_and_its_error_torchmetrics():
    got, wanted = (spectral.log_mel(spectral.power(signal)) for signal in (A, B))
    mel = librosa.feature.melspectrogram(y=A, sr=RATE, n_fft=2048, hop_length=512, n_mels=128)
    assert np.allclose(got, librosa.power_to_db(mel, top_db=None), atol=1e-3)
    floor = float(wanted.max()) - 80
    clipped = [torch.from_numpy(np.maximum(x, floor)) for x in (got, wanted)]
    error = float(torchmetrics.functional.mean_absolute_error(*clipped))
    assert spectral.log_mel_l1(got, wanted) == pytest.approx(error, rel=1e-5)


def test_the_multi_resolution_distance_is_auralosss():
    sizes = list(spectral.RESOLUTIONS)
    loss = auraloss.freq.MultiResolutionSTFTLoss(fft_sizes=sizes, hop_sizes=[n // 4 for n in sizes], win_lengths=sizes)
    theirs = float(loss(torch.from_numpy(A)[None, None], torch.from_numpy(B)[None, None]))
    convergence, logarithm = spectral.multi_resolution(spectral.magnitudes(A), spectral.magnitudes(B))
    assert convergence + logarithm == pytest.approx(theirs, rel=1e-4)
    only = {"w_sc": 1.0, "w_log_mag": 0.0}
    loss = auraloss.freq.MultiResolutionSTFTLoss(sizes, [n // 4 for n in sizes], sizes, **only)
    assert convergence == pytest.approx(float(loss(torch.from_numpy(A)[None, None], torch.from_numpy(B)[None, None])), rel=1e-4)


def test_chroma_is_librosas_and_its_likeness_torchmetrics():
    ours = [spectral.chroma(spectral.power(signal)) for signal in (A, B)]
    for signal, chroma in zip((A, B), ours, strict=True):
        theirs = librosa.feature.chroma_stft(y=signal, sr=RATE, tuning=0)
        loud = spectral.power(signal).max(axis=0) > 1e-10
        assert np.allclose(chroma[:, loud], theirs[:, loud], atol=1e-4)
    frames = spectral.audible(spectral.power(B))
    cosine, correlation = spectral.chroma_likeness(*ours, frames)
    a, b = (torch.from_numpy(chroma[:, frames]) for chroma in ours)
    assert cosine == pytest.approx(float(torchmetrics.functional.cosine_similarity(a.T, b.T, reduction="mean")), rel=1e-4)
    assert correlation == pytest.approx(float(torchmetrics.functional.pearson_corrcoef(a.flatten(), b.flatten())), rel=1e-4)
    assert spectral.chroma_likeness(ours[1], ours[1], frames) == (pytest.approx(1), pytest.approx(1))
    assert spectral.chroma_likeness(np.zeros_like(ours[1]), ours[1], frames) == (None, None)


def test_the_envelopes_correlation_is_torchmetrics():
    a, b = (onsets.envelope(onsets.mel(signal)) for signal in (A, B))
    theirs = float(torchmetrics.functional.pearson_corrcoef(torch.from_numpy(a), torch.from_numpy(b)))
    assert onsets.correlation(a, b) == pytest.approx(theirs, rel=1e-5)


def test_another_octave_has_the_same_pitch_classes_and_a_tone_up_has_not():
    time = np.arange(RATE) / RATE
    low, high, other = (
        spectral.chroma(spectral.power(np.sin(2 * np.pi * f * time).astype(np.float32))) for f in (220, 440, 493.88)
    )
    frames = np.ones(low.shape[1], bool)
    assert spectral.chroma_likeness(high, low, frames)[0] > 0.97
    assert spectral.chroma_likeness(other, high, frames)[1] < 0.2


def test_a_checkerboard_is_found_at_its_period_and_noise_has_none():
    random = np.random.default_rng(0)
    wanted = random.standard_normal((64, 600)).cumsum(axis=1)
    plain = wanted + random.standard_normal(wanted.shape)
    assert spectral.checkerboard(plain, wanted) < 1.3
    for period in (2, 4, 8):
        pattern = 1.0 * (np.arange(600) % period == 0)
        assert spectral.checkerboard(plain + pattern, wanted) > 3, period
        assert spectral.checkerboard(plain + pattern, wanted + pattern) < 1.5, "music that has this period itself"
    assert spectral.checkerboard(plain + (np.arange(600) % 5 == 0), wanted) < 1.5, "a period that no network leaves"
    assert spectral.checkerboard(wanted, wanted) == pytest.approx(1)
    assert spectral.checkerboard(plain[:, :50], wanted[:, :50]) is None
    assert spectral.checkerboard(np.full_like(wanted, -200), wanted) is None
    late = np.full_like(wanted, -200)
    late[:, -40:] = 0  # after the last whole piece of 256 frames
    assert spectral.checkerboard(plain, late) is None and spectral.checkerboard(late, late) is None


def test_what_is_left_alone_shows_what_a_mix_changed_there():
    heard = spectral.log_mel(spectral.power(A))
    drums = np.zeros_like(A)
    drums[20_000:24_000] = B[20_000:24_000]
    true = spectral.log_mel(spectral.power(A + drums))
    assert spectral.untouched_change(true, true, heard) < 0.1
    assert spectral.untouched_change(heard, true, heard) == 0
    assert spectral.untouched_change(true + 3, true, heard) == pytest.approx(3, abs=0.05)
    assert spectral.untouched_change(true, heard + 5, heard) is None


def test_the_best_gain_is_found():
    wanted = spectral.log_mel(spectral.power(A))
    quiet = spectral.log_mel(spectral.power(A * np.float32(0.1)))
    assert spectral.best_gain(quiet, wanted) == pytest.approx(20, abs=0.01)


def test_librosas_onsets_of_a_given_spectrogram_are_two_frames_late_and_ours_are_not():
    """Given `S=` of n_fft 1024 and left at its default of 2048, librosa moves its frames by 46 ms at hop 512."""
    times = np.arange(0.5, 4.6, 0.5)
    clicks = np.zeros(5 * RATE, np.float32)
    random = np.random.default_rng(0)
    for time in times:
        clicks[int(time * RATE) :][:400] += random.standard_normal(400).astype(np.float32) * 0.3
    mel = librosa.feature.melspectrogram(y=clicks, sr=RATE, n_fft=1024, hop_length=512, n_mels=64)
    strength = librosa.onset.onset_strength(S=librosa.power_to_db(mel), sr=RATE)
    theirs = librosa.onset.onset_detect(onset_envelope=strength, sr=RATE, units="time")
    ours = onsets.peaks(onsets.envelope(onsets.mel(clicks))) * onsets.FRAME

    def late(found):
        return float(np.median([found[np.abs(found - time).argmin()] - time for time in times]))

    assert abs(late(ours)) < 0.6 * onsets.FRAME
    assert late(theirs) > 1.4 * onsets.FRAME


def test_frames_within_sixty_decibels_of_the_loudest_are_audible():
    assert spectral.audible(np.array([[1.0, 2e-6, 5e-7]])).tolist() == [True, True, False]


def test_a_bin_is_untouched_that_the_true_stem_changes_by_less_than_a_tenth_of_a_decibel():
    heard = np.zeros((1, 4))
    mix, true = np.array([[1.0, 3.0, 100.0, 100.0]]), np.array([[0.0, 0.05, 0.2, 5.0]])
    assert spectral.untouched_change(mix, true, heard) == pytest.approx(2)

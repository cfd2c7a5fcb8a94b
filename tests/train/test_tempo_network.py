"""The tempo network: numpy gives what torch gives, it learns a tempo, and the sound may come in any blocks."""

import numpy as np
import pytest
import torch

from p2p_dist.audio import tempo
from p2p_dist.audio.rhythm import Rhythm
from p2p_dist.audio.tempo import CHANNELS, CLASSES, RATE, RATES, Powers, Tempo, network, rises, tempogram
from p2p_dist.train.tempo_network import TempoNetwork, pictures_of, song_of, train


def notes(bpm, seconds=20.0, pitch=220.0):
    """A note on each beat and a softer one between, with noise under them."""
    random = np.random.default_rng(0)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.001 * random.standard_normal(len(time))
    for number, begin in enumerate(np.arange(0.1, seconds - 0.3, 30 / bpm)):
        at = round(begin * RATE)
        length = min(RATE // 4, len(time) - at)
        one = np.sin(2 * np.pi * pitch * (1 + number % 3 / 4) * time[:length]) * np.exp(-time[:length] / 0.06)
        sound[at : at + length] += one * (0.3 if number % 2 == 0 else 0.1)
    return sound.astype(np.float32)


def test_numpy_gives_what_torch_gives():
    torch.manual_seed(1)
    net = TempoNetwork().eval()
    assert sum(weight.numel() for weight in net.parameters()) == 27521
    pictures = np.random.default_rng(0).standard_normal((3, CHANNELS, len(RATES))).astype(np.float32)
    with torch.no_grad():
        wanted = torch.softmax(net(torch.from_numpy(pictures)), dim=1).numpy()
    found = network({name: value.numpy() for name, value in net.state_dict().items()}, pictures)
    assert found.shape == (3, len(RATES[CLASSES])) and np.abs(found - wanted).max() < 1e-6
    assert RATES[CLASSES][0] >= 50 > RATES[CLASSES.start - 1] and RATES[CLASSES.stop] > RATES[CLASSES][-1] * 1.019


def test_the_weights_in_the_package_are_this_network_s_and_tell_a_tempo():
    assert tempo.WEIGHTS.stat().st_size < 120_000
    TempoNetwork().load_state_dict({name: torch.from_numpy(value) for name, value in tempo.trained().items()})
    heard = Tempo()
    heard.add(notes(104))
    heard.finish()
    ratio = heard.region() / 104
    assert min(abs(ratio / octave - 1) for octave in (0.5, 1, 2)) < 0.03


def test_the_region_chooses_among_the_tempos_of_a_rhythm():
    sound = notes(104)
    heard = Rhythm(float(np.abs(sound).max()))
    heard.add(sound)
    heard.finish()
    assert min(abs(heard.beats().bpm / 104 / octave - 1) for octave in (0.5, 1, 2)) < 0.001
    heard.tempo.sum[:] = 0
    heard.tempo.sum[abs(RATES[CLASSES] / 78 - 1).argmin()] = 1
    assert any(abs(heard.beats().bpm / 78 / octave - 1) < 0.031 for octave in (0.5, 1, 2)), "three to four"


@pytest.fixture(scope="module")
def learnt():
    """A network trained on two songs for a few steps, and its songs."""
    silence = np.zeros(20 * RATE, np.float32)
    songs = [song_of([notes(bpm, pitch=110), notes(bpm), silence, silence], bpm) for bpm in (80, 125)]
    pool = [pictures_of(song, 0, 12) for song in songs]
    return pool, train(pool, steps=40)


def test_it_learns_a_tempo_and_a_seed_learns_the_same_again(learnt):
    pool, weights = learnt
    heard = Tempo(weights)
    heard.add(notes(100))
    heard.finish()
    assert heard.region() == pytest.approx(100, rel=0.04), "a tempo that neither song has: the stretches are faster and slower"
    again = train(pool, steps=2)
    assert all(np.array_equal(again[name], value) for name, value in train(pool, steps=2).items())
    assert not np.array_equal(again["leave.weight"], weights["leave.weight"])


def test_stretches_differ_and_their_tempo_is_told(learnt):
    pool, _ = learnt
    bpms = [bpm for _, bpm in pool[1]]
    assert len(set(bpms)) == len(bpms) and 125 * 0.7 < min(bpms) < 110 < 140 < max(bpms) < 125 * 1.42
    for picture, bpm in pool[1][:4]:
        assert picture.shape == (CHANNELS, len(RATES)) and np.isfinite(picture).all()
        near = abs(np.log2(RATES / bpm)) < 0.04
        assert picture[15, near].max() > np.median(picture[15]), "the autocorrelation at the beat"


def test_blocks_do_not_matter_and_frames_of_both_kinds_have_one_middle():
    sound = notes(111, seconds=5)
    whole, parts = Powers(), Powers()
    wanted = [np.concatenate(pair, axis=1) for pair in zip(whole.add(sound), whole.finish(), strict=True)]
    pieces = [parts.add(sound[at : at + 3333]) for at in range(0, len(sound), 3333)] + [parts.finish()]
    for one, pair in zip(wanted, zip(*pieces, strict=True), strict=True):
        assert np.allclose(np.concatenate(pair, axis=1), one, rtol=1e-4, atol=1e-6)
    mel, pitch = wanted
    assert mel.shape[1] == pitch.shape[1] == 1 + len(sound) // tempo.HOP
    click = np.zeros(2 * RATE, np.float32)
    click[RATE] = 1
    powers = Powers()
    for power in powers.add(click):
        assert power.sum(axis=0).argmax() == 50


def test_a_faster_song_is_a_shifted_tempogram():
    powers = Powers()
    curves = rises(*powers.add(notes(100)))
    plain, faster = tempogram(curves), tempogram(curves, faster=2.0)
    octave = tempo.PER_OCTAVE
    assert np.allclose(faster[:, octave:], plain[:, :-octave], atol=1e-5)


def test_silence_and_short_sound_have_no_tempo(learnt):
    _, weights = learnt
    for sound in (np.zeros(30 * RATE), notes(100, seconds=3), np.zeros(0)):
        heard = Tempo(weights)
        heard.add(sound.astype(np.float32))
        heard.finish()
        assert heard.region() is None

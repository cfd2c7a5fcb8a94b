"""The pattern network learns who plays when, at any tempo, and goes on from its state to the bit."""

import numpy as np
import pytest
import torch

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.drum_classes import CLASSES, REST, Onset, activations
from p2p_dist.audio.pattern_features import CHANNELS, FRAME, RATE, SOUND, pattern_features
from p2p_dist.model import pattern
from p2p_dist.model.pattern import (
    GRID,
    INPUTS,
    Pattern,
    Training,
    loss,
    on_grid,
    positions_of,
    predict,
    train_pattern,
    with_places,
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def song(bpm=120.0, seconds=30.0, seed=0):
    """A bass on all beats and chords between them; kick on the beats, snare on the second and fourth, hats between."""
    random = np.random.default_rng(seed)
    beats = Beats(bpm, 0.1)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = random.normal(0, 1e-3, len(time))
    for step, hertz in ((1, 80.0), (2, 700.0)):
        since = (time - beats.first) % (60 / bpm / step)
        sound += np.exp(-since / 0.05) * np.sin(2 * np.pi * hertz * time) * 0.2
    onsets = [Onset(float(at), "kick", 1.0) for at in beats.times(seconds)]
    onsets += [Onset(float(at), "snare", 1.0) for at in beats.times(seconds)[1::2]]
    onsets += [Onset(float(at), "hat", 0.7) for at in beats.times(seconds, 2)]
    features = pattern_features(sound.astype(np.float32), RATE, beats)
    return features, activations(onsets, features.shape[1], FRAME)


@pytest.fixture(scope="module")
def songs():
    return [song(120.0), song(97.0, seed=1)]


def test_it_learns_a_pattern_and_plays_it_at_another_tempo(songs, monkeypatch):
    monkeypatch.setattr(pattern, "_BATCH", 4)
    monkeypatch.setattr(pattern, "_LENGTH", 96)
    network = train_pattern(songs, 60).network
    features, true = song(140.0, 20.0, seed=2)
    found = predict(network, features)
    assert found.shape == true.shape and found.dtype == np.float32 and found.min() >= 0
    alike = [np.corrcoef(found[n], true[n])[0, 1] for n in (0, 2)]
    assert min(alike) > 0.6, alike
    assert found[REST].max() < 0.5 and abs(found[3]).max() < 0.3


@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_and_continued_gives_the_same_weights_to_the_bit(songs, stop, monkeypatch):
    monkeypatch.setattr(pattern, "_BATCH", 2)
    monkeypatch.setattr(pattern, "_LENGTH", 48)
    losses = []
    whole = train_pattern(songs, 5, seed=7, on_step=lambda _, value: losses.append(value) or True)
    half = train_pattern(songs, 5, seed=7, on_step=lambda training, _: training.step < stop)
    assert half.step == stop
    state = half.state()
    half.take_step()  # a state is a copy
    torch.manual_seed(99)
    rest = []
    again = train_pattern(songs, 5, seed=7, state=state, on_step=lambda _, value: rest.append(value) or True)
    assert losses[stop:] == rest
    for one, other in zip(whole.state().items(), again.state().items(), strict=True):
        assert one[0] == other[0] and torch.equal(one[1], other[1]), one[0]


def test_another_seed_is_another_training_and_the_callers_random_numbers_stay(songs):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b = Training(songs, 5, seed=0), Training(songs, 5, seed=1)
    a.take_step()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(a.state()["network.first.weight"], b.state()["network.first.weight"])


def test_the_rate_rises_and_falls_and_steps_are_bounded(songs, monkeypatch):
    monkeypatch.setattr(pattern, "_BATCH", 1)
    monkeypatch.setattr(pattern, "_LENGTH", 24)
    plain = pattern.loss
    monkeypatch.setattr(pattern, "loss", lambda found, wanted: 1000 * plain(found, wanted))
    training = Training(songs, 100)
    rates = []
    for step in (0, 9, 30, 98):
        training.step = step
        training.take_step()
        rates.append(training.optimizer.param_groups[0]["lr"])
        norms = [float(value.grad.norm()) for value in training.network.parameters() if value.grad is not None]
        assert np.linalg.norm(norms) == pytest.approx(1, abs=1e-3), "of a gradient that was far larger"
    assert rates == pytest.approx([1e-4, 1e-3, 2e-3, 8e-5]) and training.optimizer.param_groups[0]["weight_decay"] == 0.02


def test_a_state_of_something_else_is_refused(songs):
    training = Training(songs, 5)
    state = training.state()
    del state["network.first.weight"]
    with pytest.raises(ValueError, match="not of a pattern network"):
        training.restore(state)
    with pytest.raises(ValueError, match="not of a pattern network"):
        training.restore({name: value for name, value in training.state().items() if name != "step"})


def test_songs_without_strokes_are_left_out(songs):
    features, true = songs[0]
    silent = np.zeros_like(true)
    silent[REST] = 1
    assert len(Training([songs[0], (features, silent)], 5).songs) == 1
    with pytest.raises(ValueError, match="no song for the pattern network has a stroke"):
        Training([(features, silent)], 5)


def test_size():
    assert 0.15e6 < sum(value.numel() for value in Pattern().parameters()) < 0.4e6


def test_positions_are_those_of_the_beats():
    features = pattern_features(np.zeros(10 * RATE, np.float32), RATE, Beats(100.0, 0.3))
    expected = (np.arange(features.shape[1]) * FRAME - 0.3) / 0.6
    assert np.allclose(positions_of(features), expected, atol=1e-4)
    features[SOUND:] = 0
    assert positions_of(features)[-1] == pytest.approx((features.shape[1] - 1) * FRAME * 2)


def test_curves_are_interpolated_at_positions_of_the_beat():
    curve = np.arange(20, dtype=np.float32)[None]
    assert np.allclose(on_grid(curve, np.arange(20) / 10, np.array([0.0, 0.55, 1.9])), [[0, 5.5, 19]])


def test_a_song_with_unknown_beats_or_of_no_length_is_predicted():
    network = Pattern()
    features = pattern_features(np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32), RATE, None)
    assert predict(network, features).shape == (len(CLASSES) + 1, features.shape[1])
    assert predict(network, np.zeros((CHANNELS, 0), np.float32)).shape == (len(CLASSES) + 1, 0)
    assert predict(network, features[:, :1]).shape == (len(CLASSES) + 1, 1)


def test_nothing_is_played_before_the_first_and_after_the_last_sound():
    """Music, silence, music: where it is silent within the song, the network decides."""
    music, silence = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32), np.zeros(3 * RATE, np.float32)
    parts = [silence, music, silence, music, silence]
    rest = predict(Pattern(), pattern_features(np.concatenate(parts), RATE, Beats(120, 0.0)))[-1]
    times = np.arange(len(rest)) * FRAME
    assert (rest[(times < 2.9) | (times > 12.1)] == 1).all() and (rest[(times > 3.1) & (times < 11.9)] < 1).all()


def test_windows_have_wrong_beats_in_the_share_that_is_stated(songs):
    training = Training(songs[:1], 5)
    kinds = []
    for n in range(400):
        x, wanted = training._window(np.random.default_rng(n))
        assert x.shape == (INPUTS, pattern._LENGTH) and wanted.shape == (len(CLASSES) + 1, pattern._LENGTH)
        curve, places = wanted[0], x[SOUND : SOUND + GRID]
        kicks = np.flatnonzero((curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:]) & (curve[1:-1] > 0.3)) + 1
        if not places.any():
            kinds.append("unknown")
        elif abs(np.median(np.diff(kicks)) / GRID - 1) > 0.1:
            kinds.append("tempo")
        else:
            kinds.append("half" if places[[5, 6, 7]][:, kicks].mean() > 0.2 else "right")
    shares = {kind: kinds.count(kind) / len(kinds) for kind in ("unknown", "tempo", "half", "right")}
    assert shares["unknown"] == pytest.approx(0.02, abs=0.02)
    assert shares["tempo"] == pytest.approx(0.05, abs=0.03)
    assert shares["half"] == pytest.approx(0.1, abs=0.04)


def test_windows_have_beats_a_little_off_bars_that_begin_anywhere_and_other_levels(songs):
    training = Training(songs[:1], 5)
    off, bars, levels = [], set(), []
    for n in range(120):
        x, wanted = training._window(np.random.default_rng(n))
        levels.append(x[: (SOUND - 3) // 2].mean(axis=1))
        place = x[SOUND : SOUND + GRID]
        if not place.any():
            continue
        turns = np.exp(2j * np.pi * np.arange(GRID) / GRID) @ place @ wanted[0] / wanted[0].sum()
        if abs(turns) > 0.8 and abs(np.angle(turns)) < np.pi / 2:  # kicks on the beats: neither half a beat off nor lost
            off.append(np.angle(turns) / (2 * np.pi))
        snares = wanted[1] > 0.6
        bars.add(int(np.rint(np.angle((x[-1] + 1j * x[-3])[snares].mean()) / (np.pi / 2))) % 4 if snares.any() else -1)
    assert len(off) > 60 and np.std(off) == pytest.approx(0.02, abs=0.006)
    heard = np.array(levels)
    spread = [np.std(band[band != 0]) for band in heard.T]
    assert np.median(spread) == pytest.approx(0.14, abs=0.05), "colour and gain"
    assert bars >= {0, 1, 2, 3}


def test_each_beat_of_a_bar_is_told_to_be_the_first_as_often_as_the_others():
    """The first beat of a bar is not known: it is drawn, so that the network does not rely on it."""
    features, _ = song()
    first_beats = [Onset(float(at), "kick", 1.0) for at in Beats(120.0, 0.1).times(30.0)[::4]]
    training = Training([(features, activations(first_beats, features.shape[1], FRAME))], 5)
    told = []
    for n in range(500):
        x, wanted = training._window(np.random.default_rng(n))
        turns = (x[-1] + 1j * x[-3]) @ wanted[0] / wanted[0].sum()  # cosine and sine of the place in four beats
        if abs(turns) > 0.9:  # at the right tempo
            told.append(int(np.rint(2 * np.angle(turns) / np.pi - 0.25)) % 4)
    shares = np.bincount(told, minlength=4) / len(told)
    assert len(told) > 400 and shares == pytest.approx(0.25, abs=0.07)


def test_windows_lose_channels_or_all_of_their_sound_in_the_share_that_is_stated(songs):
    training = Training(songs[:1], 5)
    lost = [1 - np.abs(training._window(np.random.default_rng(n))[0][:SOUND]).any(axis=1).mean() for n in range(300)]
    without_sound = np.array(lost) == 1
    assert without_sound.mean() == pytest.approx(0.2, abs=0.06)
    assert np.mean(np.array(lost)[~without_sound]) == pytest.approx(0.3, abs=0.05)


def test_places_in_the_beat():
    x = with_places(np.zeros((SOUND, 4), np.float32), np.array([0.0, 1 / GRID, 1.5, -1 / GRID]))
    assert x.shape == (INPUTS, 4) and x.dtype == np.float32
    assert x[SOUND : SOUND + GRID].argmax(axis=0).tolist() == [0, 1, GRID // 2, GRID - 1]
    assert x[SOUND : SOUND + GRID].sum(axis=0).tolist() == [1] * 4
    assert np.allclose(
        x[SOUND + GRID :, 2], [np.sin(1.5 * np.pi), np.sin(0.75 * np.pi), np.cos(1.5 * np.pi), np.cos(0.75 * np.pi)], atol=1e-6
    )
    assert not with_places(np.zeros((SOUND, 4), np.float32), np.arange(4.0), known=False).any()


def test_loss_is_lowest_for_the_truth_and_ignores_classes_that_do_not_play():
    torch.manual_seed(0)
    wanted = torch.rand(2, len(CLASSES) + 1, 50) ** 4
    wanted[:, 1], wanted[:, REST] = 0, 0
    right = wanted.clone()
    right[:, REST] = -9
    assert loss(right, wanted) < 0.01
    scaled = right.clone()
    scaled[:, :REST] = 0.5 * wanted[:, :REST] + 0.1
    assert loss(right, wanted) < loss(scaled, wanted) < loss(right.roll(5, -1), wanted) - 0.5
    loud = right.clone()
    loud[:, REST] = 9
    assert loss(loud, wanted) > loss(right, wanted) + 0.5

"""Baselines are what they say: at their level, on their beats, from where they come, or absent with a reason."""

import dataclasses
import shutil

import numpy as np
import pytest

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.spectrogram import mel_power
from p2p_dist.common import files, records
from p2p_dist.data import manifest, shards
from p2p_dist.evaluate.baselines import baseline_stems
from p2p_dist.evaluate.measures import onsets
from p2p_dist.evaluate.measures import truth as truths
from p2p_dist.settings.config import Data
from p2p_dist.settings.presets import preset
from tests.conftest import write_songs

RATE = 22050
HEARD = (0.1 * np.random.default_rng(5).standard_normal((8 * RATE, 2))).astype(np.float32)


def level(stem):
    return 10 * np.log10((stem.astype(np.float64) ** 2).mean() / (HEARD.astype(np.float64) ** 2).mean())


def onset_times(stem):
    return truths.onset_times(stem.mean(axis=1))


def clicks(bpm, first, seconds, strength=lambda beat: 1.0):
    """(samples, 2) with a burst on each beat."""
    random = np.random.default_rng(0)
    sound = np.zeros((int(seconds * RATE), 2), np.float32)
    for beat, time in enumerate(np.arange(first, seconds - 0.1, 60 / bpm)):
        begin = round(time * RATE)
        sound[begin : begin + 800] += (
            strength(beat) * 0.3 * random.standard_normal((800, 1)) * np.exp(-np.arange(800) / 150)[:, None]
        )
    return sound


def test_noise_hits_are_the_same_for_a_song_and_at_their_level():
    one, again = (baseline_stems.noise_hits(HEARD, RATE, -6, "song") for _ in range(2))
    assert one.shape == HEARD.shape and np.array_equal(one, again)
    assert level(one) == pytest.approx(-6, abs=0.01)
    assert not np.array_equal(one, baseline_stems.noise_hits(HEARD, RATE, -6, "another"))
    assert 15 < len(onset_times(one)) < 64


def test_the_rock_grid_plays_on_the_beats_it_is_given():
    beats = Beats(100, 0.2)
    stem = baseline_stems.rock_grid(HEARD, RATE, beats, 3)
    assert level(stem) == pytest.approx(3, abs=0.01)
    eighths = beats.times(8, per_beat=2)
    found = onset_times(stem)
    assert len(found) >= 0.8 * len(eighths)
    assert max(np.abs(eighths - time).min() for time in found) < 0.03
    # A whole bar of two beats repeats, half of it does not: kick and snare take turns.
    power = onsets.mel(stem[:, 0])
    low = [power[:4, round(time / onsets.FRAME) : round((time + 0.1) / onsets.FRAME)].sum() for time in beats.times(7)]
    assert min(low[::2]) > 4 * max(low[1::2])


def test_far_away_is_another_part_moved_by_whole_bars():
    beats = Beats(120, 0.25)
    song = clicks(120, 0.25, 90, strength=lambda beat: 1.0 if beat < 60 else 0.5)
    song[:, 1] = np.arange(len(song)) / len(song)  # says where it comes from
    begins, samples = 30 * RATE, 10 * RATE
    far = baseline_stems.far_away(song, RATE, begins, samples, beats)
    moved = round((far[0, 1] - song[begins, 1]) * len(song)) / RATE
    assert far.shape == (samples, 2) and abs(moved) >= 20 - 0.01
    assert moved % 2 == pytest.approx(0, abs=1e-3) or moved % 2 == pytest.approx(2, abs=1e-3), "a bar is 2 s"
    assert np.abs(far[:, 0]).max() > 0
    own = truths.onset_times(song[begins : begins + samples, 0])
    assert np.abs(truths.onset_times(far[:, 0])[:5] - own[:5]).max() < 0.03


def test_far_away_needs_a_beat_and_a_long_song():
    song = clicks(120, 0.25, 39)
    assert baseline_stems.far_away(song, RATE, 0, RATE, Beats(120, 0.25)) == "the song is shorter than 40 s"
    assert baseline_stems.far_away(song, RATE, 0, RATE, None) == baseline_stems.NO_BEATS


@pytest.mark.parametrize("loop", [True, False])
def test_a_training_songs_stem_comes_in_time(loop):
    """100 beats a minute become 125: on the beats of the song, and nowhere else."""
    config = preset("tiny")
    data = config.data
    source = clicks(100, 0.3, 40)
    power = mel_power(source[:, 0], RATE, data.n_fft, data.hop_length, data.mels)
    known = baseline_stems.Training([("other", power, Beats(100, 0.3))], "", -3.0)
    stem = baseline_stems.from_training(known, HEARD, RATE, Beats(125, 0.1), config.data, config.evaluate.iterations, loop=loop)
    assert stem.shape == HEARD.shape and level(stem) == pytest.approx(-3, abs=0.01)
    beats = Beats(125, 0.1).times(8)
    found = onset_times(stem)
    met = [np.abs(found - beat).min() < 0.05 for beat in beats[1:-1]]
    assert np.mean(met) > 0.9 and len(found) < 1.5 * len(beats)


def test_the_song_nearest_in_tempo_is_taken_and_another_for_the_loop():
    config = preset("tiny")
    power = np.zeros((config.data.mels, 4000), np.float32)
    songs = [(str(bpm), power + place, Beats(bpm, 0.0)) for place, bpm in ((1e-3, 90), (2e-3, 119), (3e-3, 140))]
    asked = []

    def spy(power, *rest):
        asked.append(float(power[0, 0]))
        return real(power, *rest)

    real = baseline_stems.in_time
    baseline_stems.in_time = spy
    try:
        for loop in (False, True):
            baseline_stems.from_training(
                baseline_stems.Training(songs, "", 0.0),
                HEARD,
                RATE,
                Beats(120, 0),
                config.data,
                config.evaluate.iterations,
                loop=loop,
            )
    finally:
        baseline_stems.in_time = real
    assert asked == pytest.approx([2e-3, 3e-3])


def test_the_loudest_part_of_a_song_is_repeated():
    """The first bars are often empty."""
    data = preset("tiny").data
    beat = round(0.5 * data.sample_rate / data.hop_length)  # frames
    exact = Beats(60 * data.sample_rate / data.hop_length / beat, 0.0)
    power = np.full((data.mels, 16 * beat), 0.01, np.float32)
    power[:, 8 * beat : 12 * beat] = np.arange(4 * beat) + 1.0
    found = baseline_stems.in_time(power, exact, exact, 4, 8 * beat, data)
    np.testing.assert_allclose(found[0, : 4 * beat - 1], np.arange(4 * beat - 1) + 1, rtol=1e-3)
    np.testing.assert_allclose(found[:, 4 * beat : -1], found[:, : 4 * beat - 1], rtol=1e-3)


@pytest.mark.parametrize(("held", "loop", "count"), [(23.5, False, 16), (13.5, True, 12)])
def test_whole_bars_of_a_song_are_repeated_and_not_more_than_it_has(held, loop, count, monkeypatch):
    config, asked = preset("tiny"), []
    power = np.full((config.data.mels, int(held * 0.5 * config.data.sample_rate / config.data.hop_length)), 1e-3, np.float32)
    real = baseline_stems.in_time
    monkeypatch.setattr(baseline_stems, "in_time", lambda *given: asked.append(given[3]) or real(*given))
    known = baseline_stems.Training([("a", power, Beats(120, 0.0))], "", 0.0)
    baseline_stems.from_training(known, HEARD, RATE, Beats(120, 0.0), config.data, 1, loop=loop)
    assert asked == [count], "the measured song has 16 beats"


def of_beats(power, data, count):
    """So many beats in the whole of a song."""
    return Beats(60 * count / (power.shape[1] * data.hop_length / data.sample_rate), 0.0)


def test_training_songs_are_found_in_the_shards_and_measured_ones_are_not_used(tmp_path, monkeypatch):
    write_songs(tmp_path / "songs", {"train/one": 5.0, "train/two": 5.5, "test/five": 1.5})
    data = preset("tiny").data
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", data, 1) == []
    known = baseline_stems.training(tmp_path / "out", data, {"five"})
    assert known.reason == "" and {name for name, _, _ in known.songs} <= {"one", "two"}
    _, power, beats = known.songs[0]
    assert power.shape[0] == data.mels and power.shape[1] >= 5 * data.sample_rate // data.hop_length
    ratio = beats.bpm / 120  # a hit every 0.25 s
    assert min(abs(ratio - r) for r in (0.75, 1.0, 4 / 3, 1.5)) < 0.03, beats
    finished = [records.read(path)["levels"] for path in (tmp_path / "out" / "parts").glob("train-*.json")]
    assert known.level == pytest.approx(np.median([r["target"] - r["input"] for r in finished])) and len(finished) == 2
    away = tmp_path / "fetched"  # a dataset that was fetched has no records of songs
    shutil.copytree(tmp_path / "out", away, ignore=shutil.ignore_patterns("parts"))
    assert baseline_stems.training(away, data, {"five"}).level == known.level
    for path in away.glob("train-*.tar"):
        path.unlink()
    by_node = dataclasses.replace(data, root=None, shards="https://example.org/set", stage="node")
    fetched = baseline_stems.training(away, by_node, {"five"})
    assert fetched.level == known.level and not fetched.songs and "fetches the training shards by itself" in fetched.reason
    content = manifest.read(away)
    for song in content["splits"]["train"]["songs"]:
        del song["level"]
    manifest.write(away, content)
    earlier = baseline_stems.training(away, by_node, {"five"})
    assert earlier.level is None, "of an earlier version"
    silent, sounding = sorted((tmp_path / "out" / "parts").glob("train-*.json"))
    content = records.read(silent)
    files.write_json(silent, files.sealed({**content, "levels": {**content["levels"], "target": None}}))
    levels = records.read(sounding)["levels"]
    found = baseline_stems.training(tmp_path / "out", data, {"five"})
    assert found.level == pytest.approx(levels["target"] - levels["input"]), "a silent stem has no level"
    for beats, count in ((7.9, 0), (8.1, 2)):
        monkeypatch.setattr(baseline_stems, "_beats_of", lambda power, data, beats=beats: of_beats(power, data, beats))
        assert len(baseline_stems.training(tmp_path / "out", data, {"five"}).songs) == count, "two bars at least"
    held_out = baseline_stems.training(tmp_path / "out", data, {"one", "two", "five"})
    assert not held_out.songs and "other than the measured song" in held_out.reason
    assert baseline_stems.from_training(held_out, HEARD, RATE, Beats(120, 0), data, 32, loop=True) == held_out.reason
    assert baseline_stems.from_training(known, HEARD, RATE, None, data, 32, loop=True) == baseline_stems.NO_BEATS
    thesis = baseline_stems.training(tmp_path / "out", dataclasses.replace(Data(), representation="thesis"), set())
    assert not thesis.songs and "mix" in thesis.reason

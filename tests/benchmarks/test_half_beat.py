"""What the benchmark of the half beat learns from."""

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import layouts
from p2p_dist.model.pattern import GRID
from tests.benchmarks.half_beat import STRETCH, changes, differences, judge_of, right
from tests.generate import drums


def test_beats_differ_from_half_beats_where_chords_change_and_the_other_way_round_half_a_beat_later(tmp_path):
    seconds, beat = 30.0, 0.5
    chords = drums.chords(seconds + beat, 60 / beat)[round(0.1 * drums.RATE) :]  # the first is at 0
    found = {}
    for name, begin in (("on", 0.0), ("off", beat / 2), ("short", 0.0)):
        heard = np.concatenate([np.zeros(round(begin * drums.RATE)), chords])[: round(seconds * drums.RATE)]
        click = (np.arange(len(heard)) % round(beat * drums.RATE) < 200) * np.linspace(1, 0.5, len(heard))
        folder = tmp_path / name / "train" / "song"
        folder.mkdir(parents=True)
        samples = len(heard) if name != "short" else round(5 * drums.RATE)
        for stem, sound in {"drums": click, "bass": heard, "other": 0 * heard, "vocals": 0 * heard}.items():
            soundfile.write(folder / f"{stem}.wav", sound[:samples], drums.RATE, subtype="FLOAT")
        (source,) = layouts.find_songs(tmp_path / name)
        found[name] = differences(source)
    assert found["short"] is None, "fewer beats than a stretch"
    on, off = found["on"], found["off"]
    assert on.shape == off.shape and len(on) == (round(seconds / beat) - 6) // STRETCH
    assert (on.mean(axis=0)[:5] > 0.1).any() and np.sign(on[:, 0]).tolist() == [1.0] * len(on)
    np.testing.assert_allclose(off.mean(axis=0)[0], -on.mean(axis=0)[0], rtol=0.3)


def test_the_spectrum_changes_where_a_chord_does():
    levels = np.zeros((4, 8 * GRID))
    levels[:2, 4 * GRID :] = 1.0  # half of the bands from beat 4 on
    assert changes(levels, 1, 0) == pytest.approx([0, 0, 0, 0, 0.5, 0, 0, 0])
    assert changes(levels, 1, GRID // 2)[3:5] == pytest.approx([0.25, 0.25])
    assert changes(levels, 2, 0)[3:6] == pytest.approx([0.25, 0.5, 0.25])


def test_a_judge_learns_which_difference_tells_beats():
    random = np.random.default_rng(0)
    songs = [random.normal(0, 1, (5, 3)) + np.array([0, 2.0, 0]) for _ in range(20)]
    judge = judge_of(songs)
    assert abs(judge).argmax() == 1 and judge[1] > 0
    assert right(songs, judge) == 20 and right([-song for song in songs], judge) == 0

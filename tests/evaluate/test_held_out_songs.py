"""The songs that are measured: what is read of them, and where they begin."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio.layouts import source_at
from p2p_dist.common import files
from p2p_dist.evaluate import held_out_songs
from p2p_dist.evaluate.measures.measure import measure
from p2p_dist.settings import presets
from tests import decode
from tests.data.conftest import SMALL, dataset, song_sound, songs
from tests.data.one_song import one_song
from tests.generate import drums

__all__ = ["dataset", "songs"]


def test_an_excerpt_in_the_middle_of_a_song_keeps_its_beats() -> None:
    """Beats are found over the whole song; in the excerpt they are counted from where it begins."""
    rate, seconds = 22050, 30.0
    random = np.random.default_rng(0)
    time = np.arange(int(rate * seconds)) / rate
    hits = random.standard_normal(len(time)) * np.exp(-30 * ((time - 0.31) % 0.5)) * (time > 0.31)
    made = (0.3 * hits * np.where((time > 13) & (time < 21), 1.0, 0.1))[:, None].astype(np.float32)
    heard = (0.1 * np.sin(2 * np.pi * 220 * time))[:, None].astype(np.float32)
    settings = presets.PRESETS["tiny"]
    excerpt = held_out_songs.read_excerpt(
        held_out_songs.HeldOut("x", "x", "test", lambda: (heard, made, rate)), settings.data, settings.evaluate.seconds
    )
    begins = excerpt.begins / rate
    assert 12 < begins < 19 and excerpt.seconds == pytest.approx(3, abs=0.3)
    assert np.array_equal(excerpt.target, made[excerpt.begins : excerpt.begins + len(excerpt.target)])
    mixed = dataclasses.replace(excerpt, input=excerpt.target)
    assert mixed.peak == 2 * np.abs(excerpt.target).max(), "the mix clips first"
    assert excerpt.beats is not None and excerpt.beats.bpm == pytest.approx(120, abs=0.1)
    assert (begins + excerpt.beats.first - 0.31 + 0.125) % 0.25 == pytest.approx(0.125, abs=0.03)
    assert measure(excerpt.target, excerpt.truth).row["lock8"] == pytest.approx(1)
    assert (excerpt.real.shape, len(excerpt.truth.real)) == ((2, 41), 1), "two windows of the whole song are loud enough"


def test_more_of_a_song_is_measured_than_can_be_heard_so_that_all_songs_have_enough_windows() -> None:
    rate, settings = 22050, presets.PRESETS["tiny"]
    random = np.random.default_rng(1)
    heard, made = (0.1 * random.standard_normal((40 * rate, 1)).astype(np.float32) for _ in range(2))
    made *= np.where((np.arange(len(made)) > 20 * rate) & (np.arange(len(made)) < 25 * rate), 1.0, 0.3)[:, None]
    song = held_out_songs.HeldOut("x", "x", "test", lambda: (heard, made.astype(np.float32), rate))
    alone = held_out_songs.read_excerpt(song, settings.data, 4.0)
    wide = held_out_songs.read_excerpt(song, settings.data, 4.0, measured=16.0)
    assert alone.audible == slice(0, len(alone.input)) and "measured" not in alone.place()
    assert wide.seconds == pytest.approx(16, abs=0.3)
    begin, end = wide.begins + wide.audible.start, wide.begins + wide.audible.stop
    assert (begin, end) == (alone.begins, alone.begins + len(alone.input)), "the same is heard"
    assert np.array_equal(wide.target[wide.audible], alone.target)
    place = wide.place()
    assert place.pop("measured") == {"begins": wide.begins / rate, "seconds": wide.seconds} and place == alone.place()
    evaluate = presets.PRESETS["default"].evaluate
    seconds = [held_out_songs.measured_seconds(evaluate, songs) for songs in (1, 10, 100)]
    assert seconds == pytest.approx([1486.1, 148.61, 30.0], rel=1e-3), "250 windows of 5.94 s, or 30 s of each"
    assert held_out_songs.measured_seconds(dataclasses.replace(evaluate, seconds=0.0), 10) == 0, "whole songs"
    assert held_out_songs.measured_seconds(dataclasses.replace(evaluate, windows=0), 10) == 30


def test_a_drummer_plays_to_the_beats_that_it_hears_or_to_those_of_the_true_drums() -> None:
    """Chords at 120 beats a minute over drums at 100: without the drums the song says 120."""
    rate, settings = drums.RATE, presets.PRESETS["tiny"]
    model = dataclasses.replace(settings.model, sketch=True)
    heard = drums.chords(12.0)[:, None]
    time = np.arange(len(heard)) / rate
    made = (np.random.default_rng(0).standard_normal(len(time)) * np.exp(-30 * ((time - 0.2) % 0.6)) * (time > 0.2))[:, None]
    song = held_out_songs.HeldOut("x", "x", "test", lambda: (heard, made.astype(np.float32) * 0.3, rate))
    for known, bpm, first in ((False, 120, 0.1), (True, 100, 0.2)):
        one = held_out_songs.read_excerpt(song, settings.data, 3.0, drums.drummer(settings.data, model), known_beats=known)
        assert one.performance is not None and one.performance.heard.beats is not None
        assert one.performance.heard.beats.bpm == pytest.approx(bpm, rel=0.006)
        assert one.performance.heard.beats.first == pytest.approx(first, abs=0.05)


def test_the_beats_are_those_of_the_true_drums_whatever_else_hits() -> None:
    """An input that hits at another tempo, louder. If it failed: a grid of the wrong song for the measure in time."""
    rate, settings = 22050, presets.PRESETS["tiny"]
    time = np.arange(int(20 * rate)) / rate
    random = np.random.default_rng(0)
    made, heard = (
        level * random.standard_normal(len(time)) * np.exp(-30 * (time % period)) for level, period in ((0.05, 0.5), (0.5, 0.6))
    )
    song = held_out_songs.HeldOut(
        "x", "x", "test", lambda: (heard[:, None].astype(np.float32), made[:, None].astype(np.float32), rate)
    )
    beats = held_out_songs.read_excerpt(song, settings.data, 3.0).beats
    assert beats is not None and beats.bpm == pytest.approx(120, rel=0.01)


def test_held_out_songs_carry_their_sound(dataset: Path, songs: Path) -> None:
    from p2p_dist.evaluate.held_out_songs import from_shards

    decoded = decode.load(source_at(songs / "test" / "D", "test"))
    (song,) = from_shards(dataset, "test", 10)
    input, target, rate = song.read()
    assert rate == decoded.sample_rate
    np.testing.assert_allclose(input, decoded.sum_of(["bass", "other", "vocals"]), atol=2**-22)
    np.testing.assert_allclose(target, decoded.stems["drums"], atol=2**-22)


def test_a_song_above_full_scale_keeps_its_level(tmp_path: Path) -> None:
    """It is stored below it. If it failed: a level error of the drums of every such song."""
    folder = tmp_path / "songs" / "test" / "Loud"
    folder.mkdir(parents=True)
    for name, sound in song_sound(1.5).items():
        soundfile.write(folder / f"{name}.wav", 10 * sound, 22050, subtype="FLOAT")
    one_song(tmp_path / "out", folder, SMALL, "test")
    (song,) = held_out_songs.from_shards(tmp_path / "out", "test", 1)
    input, target, _ = song.read()
    decoded = decode.load(source_at(folder, "test"))
    assert np.abs(input).max() > 1
    np.testing.assert_allclose(input, decoded.sum_of(["bass", "other", "vocals"]), atol=2**-18)
    np.testing.assert_allclose(target, decoded.stems["drums"], atol=2**-18)


def test_held_out_sound_that_is_damaged_is_never_heard(dataset: Path, tmp_path: Path) -> None:
    from p2p_dist.evaluate.held_out_songs import from_shards

    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    (song,) = from_shards(copy, "test", 10)
    song.read()
    (shard,) = copy.glob("audio/audio-test-*.tar")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(files.DamagedError, match=rf"{shard.name} is damaged: the audio of {song.key}") as damaged:
        song.read()
    assert "the launch command" in str(damaged.value)
    shard.unlink()
    with pytest.raises(files.DamagedError, match=rf"{shard.name}: the audio of {song.key} is missing"):
        song.read()

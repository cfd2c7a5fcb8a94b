"""The songs that are measured: what is read of them, and where they begin."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.audio.layouts import source_at
from p2p_dist.common import files
from p2p_dist.evaluate import held_out_songs
from p2p_dist.evaluate.measures.measure import measure
from p2p_dist.settings import presets
from tests import decode
from tests.data.conftest import dataset, songs

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
    assert excerpt.beats is not None and excerpt.beats.bpm == pytest.approx(120, abs=0.1)
    assert (begins + excerpt.beats.first - 0.31 + 0.125) % 0.25 == pytest.approx(0.125, abs=0.03)
    assert measure(excerpt.target, excerpt.truth).row["lock8"] == pytest.approx(1)
    assert (excerpt.real.shape, len(excerpt.truth.real)) == ((2, 41), 1), "two windows of the whole song are loud enough"


def test_held_out_songs_carry_their_sound(dataset: Path, songs: Path) -> None:
    from p2p_dist.evaluate.held_out_songs import from_shards

    decoded = decode.load(source_at(songs / "test" / "D", "test"))
    (song,) = from_shards(dataset, "test", 10)
    input, target, rate = song.read()
    assert rate == decoded.sample_rate
    np.testing.assert_allclose(input, decoded.sum_of(["bass", "other", "vocals"]), atol=2**-22)
    np.testing.assert_allclose(target, decoded.stems["drums"], atol=2**-22)


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

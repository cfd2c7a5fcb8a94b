"""Stem and mix as files: sides, levels, and what listens while they are written."""

from types import SimpleNamespace

import numpy as np
import pytest

from p2p_dist.audio import decode
from p2p_dist.generate import stem_and_mix
from p2p_dist.generate.request import Options
from tests.generate.conftest import write
from tests.generate.made import read


class Ear:
    """Keeps what it is given to hear."""

    def __init__(self):
        self.heard, self.finished = [], False

    def add(self, block):
        self.heard.append(block)

    def finish(self):
        self.finished = True


@pytest.mark.parametrize("song_level", [0.5, 0.0001])
def test_mid_and_side_become_left_and_right_and_each_ear_hears_its_own(tmp_path, song_level):
    """Left is mid plus side; MIDI is made from the stem, the tempo from the song."""
    from p2p_dist.audio.hits import RATE

    write(tmp_path / "song.wav", np.full((8000, 2), song_level), 8000, "FLOAT")
    song = decode.look(tmp_path / "song.wav")
    np.tile(np.array([0.3, 0.1], np.float32), (8000, 1)).tofile(tmp_path / "raw")
    model = SimpleNamespace(data=SimpleNamespace(picture_channels=2, sample_rate=8000))
    paths = {"stem": tmp_path / "stem", "mix": tmp_path / "mix"}
    song.samples, of_stem, of_song = 8000, Ear(), Ear()
    options = Options(level=20 * np.log10(2), format="wav")
    loudest = stem_and_mix.write(song, tmp_path / "raw", model, options, paths, -6.0, [of_stem], [of_song])
    (stem, _), (mix, _) = read(paths["stem"]), read(paths["mix"])
    gain = 10 ** (-6 / 20)
    assert stem == pytest.approx(np.tile([0.8 * gain, 0.4 * gain], (8000, 1)), abs=2e-7)
    assert mix == pytest.approx(np.clip(stem + song_level * gain, -1, 1), abs=2e-7)
    assert loudest == pytest.approx(song_level + 0.8, abs=1e-6)
    for ear, level in ((of_stem, 0.6), (of_song, song_level)):
        signal = np.concatenate(ear.heard)
        assert ear.finished and len(signal) == RATE and signal[RATE // 2] == pytest.approx(level, rel=0.01)


def test_mix_minus_stem_is_a_song_of_24_bits_to_the_bit(tmp_path):
    random = np.random.default_rng(0)
    sound = np.rint(random.uniform(-0.4, 0.4, (8000, 1)) * 2**23) / 2**23
    write(tmp_path / "song.wav", sound, 8000, "PCM_24")
    song = decode.look(tmp_path / "song.wav")
    random.uniform(-0.4, 0.4, 8000).astype(np.float32).tofile(tmp_path / "raw")
    model = SimpleNamespace(data=SimpleNamespace(picture_channels=1, sample_rate=8000))
    paths = {"stem": tmp_path / "stem", "mix": tmp_path / "mix"}
    song.samples = 8000
    stem_and_mix.write(song, tmp_path / "raw", model, Options(format="wav"), paths, 0.0)
    (stem, _), (mix, _) = read(paths["stem"]), read(paths["mix"])
    assert (mix.astype(np.float64) - stem == sound).all()


def test_a_stem_that_is_louder_than_the_mix_is_turned_down(tmp_path):
    """Where the song takes off what the stem has."""
    write(tmp_path / "song.wav", np.full((800, 1), -0.5), 8000, "FLOAT")
    song = decode.look(tmp_path / "song.wav")
    np.full(800, 1.2, np.float32).tofile(tmp_path / "raw")
    model = SimpleNamespace(data=SimpleNamespace(picture_channels=1, sample_rate=8000))
    paths = {"stem": tmp_path / "stem", "mix": tmp_path / "mix"}
    assert stem_and_mix.write(song, tmp_path / "raw", model, Options(), paths, 0.0) == pytest.approx(1.2)

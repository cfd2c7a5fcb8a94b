"""Sound files are decoded block by block, as often as they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import decode

RATE = 22050


def written(path: Path, channels: int = 2, seconds: float = 1.5) -> np.ndarray:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * RATE), channels))
    soundfile.write(path, sound, RATE, subtype="PCM_24")
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_blocks_are_the_sound_and_can_be_read_again(tmp_path: Path, name: str) -> None:
    sound = written(tmp_path / name)
    found = decode.look(tmp_path / name)
    assert (found.rate, len(found.channels), found.is_exact) == (RATE, 2, True) and found.told == pytest.approx(1.5)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(found.blocks())), sound)
    assert found.samples == len(sound) and found.peak == np.abs(sound).max() and not found.notes


def test_a_part_is_between_its_samples(tmp_path: Path) -> None:
    sound = written(tmp_path / "a.wav")
    found = decode.look(tmp_path / "a.wav")
    found.begin, found.end = 5000, 12_345
    np.testing.assert_array_equal(np.concatenate(list(found.blocks())), sound[5000:12_345])
    assert found.samples == 7345


@pytest.mark.parametrize(("channels", "front"), [(("1",), (0,)), (("1", "2"), (0, 1)), (("FC", "FL", "LFE", "FR"), (1, 3))])
def test_front_left_and_right_are_found_by_their_names(channels: tuple[str, ...], front: tuple[int, ...]) -> None:
    assert decode.Decoded(Path("a"), RATE, channels, 0.0, True).front == front

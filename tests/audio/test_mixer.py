"""Sums of stems that are read in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from p2p_dist.audio import mixer, stem_mp4, stems
from tests import decode
from tests.song_files import clicks, cut_by_edit_list, source, write_stem_file


@pytest.mark.parametrize("held", [1, 3, 16])
def test_sums_are_those_of_the_stems_however_they_arrive(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also the mean of the channels alone; and level, peak and clipped samples are those of the whole sum."""
    monkeypatch.setattr(stem_mp4, "_HELD", held)
    path = cut_by_edit_list(write_stem_file(tmp_path / "a.stem.mp4", [3 * s for s in clicks()]), tmp_path / "b.stem.mp4", 700)
    song = decode.load(source(path))
    sides = [("bass", "other", "vocals"), ("drums",)]
    rate, sums = stems.load_sums(source(path), sides)
    _, means = stems.load_sums(source(path), sides, downmix=True)
    for side, found, mean in zip(sides, sums, means, strict=True):
        expected = song.sum_of(side)
        np.testing.assert_array_equal(found.sound, expected)
        np.testing.assert_array_equal(mean.sound[:, 0], stems.mono(expected, rate, rate))
        assert found.peak == mean.peak == np.abs(expected).max()
        assert found.clipped == mean.clipped == (np.abs(expected) >= mixer.FULL_SCALE).sum() > 0
        assert found.power == pytest.approx((expected.astype(np.float64) ** 2).mean(), rel=1e-6)


def test_the_largest_value_of_16_bits_counts_as_clipped() -> None:
    mixed = mixer.Mixer([("drums",)], False, None)
    mixed.expect(44100, 1, 4)
    mixed.take("drums", np.array([[32767 / 32768, 32766 / 32768, -1.0, 1.5]], np.float32))
    assert (mixed.totals[0].clipped, mixed.totals[0].peak) == (3, 1.5)


@pytest.mark.parametrize(("most", "filled"), [(2, 0), (3, 3), (4, 3)])
def test_a_stem_that_is_a_little_too_short_is_filled_with_silence(most: int, filled: int) -> None:
    mixed = mixer.Mixer([("drums", "bass")], False, None)
    mixed.expect(44100, 1, 1)  # a header that is wrong
    for name, samples in (("drums", 10), ("bass", 7)):
        mixed.take(name, np.ones((1, samples), np.float32))
    assert mixed.fill(most) == {"drums": 0, "bass": filled} and mixed.mixed == 7 + filled
    assert mixed.totals[0].finish(10, 7 + filled).sound[:, 0].tolist() == [2.0] * 7 + [1.0] * filled

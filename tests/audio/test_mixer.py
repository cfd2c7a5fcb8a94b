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

"""Spectrograms as pictures."""

import matplotlib.image
import numpy as np

from p2p_dist.evaluate.report import png
from p2p_dist.settings.presets import PRESETS


def test_every_panel_is_drawn_on_one_scale(tmp_path):
    data = PRESETS["tiny"].data
    quiet, loud = np.full((data.mels, 20), -70.0), np.full((data.mels, 20), 10.0)
    png.draw(tmp_path / "a" / "b.png", {"input": quiet, "generated stem": loud}, data)
    picture = matplotlib.image.imread(tmp_path / "a" / "b.png")
    assert picture.shape[:2] == (380, 900)
    upper, lower = picture[100, 300, :3], picture[260, 300, :3]
    assert upper.max() < 0.05 and lower.min() > 0.7, "black at the lower end of the scale, nearly white at the upper"

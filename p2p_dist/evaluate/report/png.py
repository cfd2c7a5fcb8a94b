"""Write spectrograms as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from p2p_dist.audio.spectrogram import band_of
from p2p_dist.common import files
from p2p_dist.settings.config import Data

_TICKS = (200, 500, 1000, 2000, 5000, 10000)


def draw(path: Path, panels: dict[str, np.ndarray], data: Data) -> None:
    """Draw log-mel spectrograms below each other with common scales of time, frequency and level.

    Args:
        panels: title -> dB (mels, frames).
    """
    tall = 1.9 * len(panels)
    figure = Figure(figsize=(9, tall), dpi=100)
    FigureCanvasAgg(figure)
    # Fixed positions, because matplotlib's layout takes longer than the drawing.
    figure.subplots_adjust(left=0.07, right=1.01, top=1 - 0.25 / tall, bottom=0.45 / tall, hspace=0.3)
    shared = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (title, db) in zip(shared, panels.items(), strict=True):
        seconds = db.shape[1] * data.hop_length / data.sample_rate
        image = axes.imshow(
            db, origin="lower", aspect="auto", extent=(0, seconds, 0, data.mels), vmin=-70, vmax=10, cmap="magma"
        )
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_ylabel("Hz")
        shown = [hz for hz in _TICKS if hz < data.sample_rate / 2]
        # The middle of band n is drawn at n + 1/2.
        axes.set_yticks([band_of(hz, data.sample_rate, data.mels) + 0.5 for hz in shown], [f"{hz:,}" for hz in shown])
    shared[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(shared), label="dB", pad=0.01, fraction=0.12)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})

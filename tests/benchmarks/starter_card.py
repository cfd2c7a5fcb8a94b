"""The model card of the starter model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sketch as strokes_alone

from p2p_dist.cli.figures import table
from p2p_dist.evaluate.baselines import baseline_stems

AUTOMATIC, KNOWN = "**starter, beats as it hears them**", "starter, known beats"
TRUE_PATTERN, THESIS = "true pattern, starter's strokes", "output of the thesis"
TARGET, ALONE = "target", "the input alone"
MADE = (baseline_stems.GRID_TRACKED, AUTOMATIC, baseline_stems.GRID_KNOWN, KNOWN)
ROWS = (TARGET, ALONE, strokes_alone.TRUE, TRUE_PATTERN, baseline_stems.COPY, baseline_stems.SILENCE, *MADE, THESIS)
REAL, RENDERED = "A real song that it never heard (evr/test)", "Rendered songs that it never heard (practice/test)"
MIXES = "Excerpts of 5.9 s that the thesis published, as mixes (thesis_clips)"
ADDED = "The same excerpts: what is added to the input"


def text(content: dict[str, Any], kits: list[str], figures: dict[str, Any], seed: int) -> str:
    """Return the text of README.md.

    Args:
        content: of config.json. kits: names of the songs that gave the strokes. figures: by set, of `starter.measure`;
            empty if it was not measured. seed: of the composer.
    """
    songs = [f"| {song['name']} | {song['author']} | {song['licence']} |" for song in content["trained_on"]]
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return template.format(
        name=content["name"],
        steps=content["step"],
        songs="\n".join(songs),
        kits=", ".join(kits),
        seed=seed,
        figures="\n".join(_figures(figures)) if figures else "It was not measured.",
    )


def _figures(figures: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, found in figures.items():
        rows = {row: found["rows"][row] for row in ROWS if row in found["rows"]}
        counted = f"Songs: {found['songs']}. Windows of six seconds: {found['windows']}."
        lines += ["", f"### {name}", "", counted, "", table({row: _middle(of) for row, of in rows.items()}, pitched=False)]
        if missing := [row for row, of in rows.items() if len(of) < found["songs"]]:
            told = ", ".join(f"{row} of {len(rows[row])}" for row in missing)
            lines += ["", f"Not of all songs, since no beats were found: {told}."]
    return lines[1:]


def _middle(songs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Means over the songs; of what a single song can spoil the median."""
    middle: dict[str, float | None] = {}
    for name in strokes_alone.COLUMNS:
        if values := [value for song in songs if (value := song.get(name)) is not None]:
            middle[name] = float(np.median(values) if name in ("lock8", "level_error") else np.mean(values))
    return middle

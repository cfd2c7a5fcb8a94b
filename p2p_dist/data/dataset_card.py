"""Write DATASET.md, the description of a dataset."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from p2p_dist.audio.stems import UNEQUAL
from p2p_dist.common.console import one_line
from p2p_dist.settings.config import STEMS

LICENCE = "The licence of the songs applies to everything derived from them. MUSDB18 is for non-commercial, educational use."

_COUNTS = {
    "silent_windows": "silent target",
    "silent_dropped": "of them dropped",
    "padded_windows": "padded",
    "copies": "copies",
    "clipped": "clipped samples",
}


def card(manifest: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Return the text of DATASET.md.

    Args:
        manifest: the content of manifest.json. records: the records of all finished songs.
    """
    settings = manifest["settings"]
    lines = [f"# Pairs of spectrograms for the task `{settings['task']}`", ""]
    lines += [f"{' x '.join(map(str, manifest['shape']))} (channels, mels, frames), {np.dtype(manifest['dtype'])}, in dB.", ""]
    lines += ["| split | songs | hours | windows | " + " | ".join(_COUNTS.values()) + " |", "| --- " * (4 + len(_COUNTS)) + "|"]
    for split, part in manifest["splits"].items():
        of = [record for record in records if record["split"] == split]
        counts = " | ".join(str(sum(record[name] for record in of)) for name in _COUNTS)
        hours = sum(record["seconds"] for record in of) / 3600
        lines.append(f"| {split} | {len(of)} | {hours:.2f} | {len(part['samples'])} | {counts} |")
    lines += ["", "Each song belongs to one split. Audio samples at or over full scale in input or target count as clipped."]
    lines += ["", "| split | level of | lowest, dBFS | median | highest | silent songs |", "| --- " * 6 + "|"]
    for split in manifest["splits"]:
        for side in ("input", "target"):
            levels = [record["levels"][side] for record in records if record["split"] == split]
            found = [level for level in levels if level is not None]
            if found:
                low, middle, high = np.quantile(found, [0, 0.5, 1])
                lines.append(f"| {split} | {side} | {low:.1f} | {middle:.1f} | {high:.1f} | {len(levels) - len(found)} |")
    lines += ["", "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."]
    lines += [text for told in _of_the_files(records) for text in ("", told)]
    if same := overlapping(manifest):
        lines += [
            "",
            "Held-out songs with the same audio as training songs; they are not evaluated unless --allow-overlap is given:",
            "",
        ]
        lines += [f"- {one_line(line)}" for line in same]
    titles = Counter(record["song"] for record in records)
    if twice := sorted(title for title, count in titles.items() if count > 1):
        lines += ["", f"Titles that occur more than once and count as different songs: {', '.join(map(one_line, twice))}."]
    if manifest["left_out"]:
        count = len(manifest["left_out"])
        lines += ["", f"Left out: {count} song{'s' if count > 1 else ''}.", ""]
        lines += [one_line(f"- {item['song']}: {item['reason']}") for item in manifest["left_out"]]
    lines += ["", LICENCE]
    return "\n".join(lines) + "\n"


def overlapping(manifest: dict[str, Any]) -> list[str]:
    """Return a line for each held-out song that is also a training song."""
    return [
        f"{song['name']} ({split}) has the audio of {', '.join(song['same_as'])} (train)"
        for split, part in manifest["splits"].items()
        for song in part["songs"]
        if song.get("same_as")
    ]


def _of_the_files(records: list[dict[str, Any]]) -> list[str]:
    """Notes on songs with ambiguous files. Records of earlier versions do not have them."""
    found = []
    if filled := [record["filled"] for record in records if record.get("filled")]:
        found.append(
            f"Songs with stems of unequal length; the shorter stems are padded with silence: {len(filled)} "
            f"(by at most {max(filled):.3f} s; over {UNEQUAL:g} s a song is left out)."
        )
    if positions := sum(record.get("by_position", False) for record in records):
        found.append(
            f"Stem files without stream titles; their streams are read in MUSDB18's order (mixture, {', '.join(STEMS)}): "
            f"{positions}."
        )
    return found

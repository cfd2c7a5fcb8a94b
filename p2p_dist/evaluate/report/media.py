"""Write the audio of a run's page: a short clip for every checkpoint, and the whole excerpt, lossless, for the best one.

All audio of a song is scaled by one gain, so that it can be compared even if the evaluations' files have different gains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from p2p_dist.audio import flac
from p2p_dist.evaluate.report import tracks
from p2p_dist.evaluate.report.tracks import FLAC, OPUS, Sound, Track
from p2p_dist.run.rundir import RunDir

CLIP = 30.0
"""Seconds of each checkpoint's stems on the page. The whole files are in evaluations/."""

LOSSLESS = 1200.0
"""Maximum seconds of FLAC on a page, about 150 MB. If there would be more, whole excerpts are Opus."""


def recorded_gain(song: dict[str, Any], fixed: dict[str, Any]) -> float | None:
    """Return the gain in dB of a checkpoint's audio files of one song; None if it is not recorded.

    Args:
        song: its entry in metrics.json. fixed: its entry in baselines.json, which has what schema 1 did not record.
    """
    gain: float | None = song.get("gain_db", fixed.get("unrecorded_gain_db"))
    return gain


def common_gain(songs: list[dict[str, Any]], fixed: dict[str, Any]) -> float | None:
    """Return the gain in dB of a song's clips, the lowest of its files; None if one of them is not known.

    Args:
        songs: its entry in the metrics.json of each checkpoint. fixed: its entry in baselines.json.
    """
    gains = [fixed.get("gain_db"), *(recorded_gain(song, fixed) for song in songs)]
    known = [gain for gain in gains if gain is not None]
    return min(known) if len(known) == len(gains) else None


class Media:
    """The audio of a page. Other files in its folder are removed at the end."""

    def __init__(self, run: RunDir) -> None:
        self.folder, self.used = run.page.parent / "media", set[Path]()

    def add(self, song: str, name: str, sound: Sound, made_of: str, *, lossless: bool, beside: Sound | None) -> Track:
        """Write audio as a track of a song.

        Args:
            song: its key. made_of: identifies the source, see `stamp`. beside: see `tracks.write`.
        """
        folder = self.folder / song / name
        self.used.add(folder)
        return tracks.write(folder, sound, FLAC if lossless else OPUS, made_of, beside)

    def remove_others(self) -> None:
        """Remove tracks of an earlier page that this page does not use, so that they are not shared by mistake."""
        for path in sorted(self.folder.rglob("*"), reverse=True):  # content before its folder
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.parent not in self.used:
                path.unlink()


def stamp(path: Path, factor: float, seconds: float | None) -> str:
    """Return a stamp of a file's audio: its time and size, its factor, and its excerpt."""
    about = path.stat()
    return f"{about.st_mtime_ns} {about.st_size} {factor:.9g} {seconds}"


def scale(own: float | None, gain: float | None) -> float:
    """Return the factor from a file's gain to the common gain of its song, both in dB; 1 if they are not known."""
    return 1.0 if own is None or gain is None else flac.factor(gain - own)

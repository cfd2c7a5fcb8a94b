"""Write the sounds of a run's page: of every checkpoint a short clip, of the best one all of it, without loss.

All of one song are scaled by one gain, so that they can be compared whatever the gains of the evaluations' files are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from p2p_dist.audio import flac
from p2p_dist.evaluate.report import tracks
from p2p_dist.evaluate.report.tracks import FLAC, OPUS, Sound, Track
from p2p_dist.run.rundir import RunDir

CLIP = 30.0
"""Seconds of each checkpoint's stems that the page holds; the whole files are in evaluations/."""

LOSSLESS = 1200.0
"""Seconds of FLAC that a page holds at most, about 150 MB; what is whole is Opus where there would be more."""


def recorded_gain(song: dict[str, Any], fixed: dict[str, Any]) -> float | None:
    """The gain in dB of a checkpoint's sound files of one song; None where nothing tells it.

    Args:
        song: what metrics.json tells of it. fixed: what baselines.json does, which knows what schema 1 did not record.
    """
    gain: float | None = song.get("gain_db", fixed.get("unrecorded_gain_db"))
    return gain


def common_gain(songs: list[dict[str, Any]], fixed: dict[str, Any]) -> float | None:
    """The gain in dB of a song's clips, the lowest of its files; None where one of them is not known.

    Args:
        songs: what the metrics.json of each checkpoint tells of it. fixed: what baselines.json does.
    """
    gains = [fixed.get("gain_db"), *(recorded_gain(song, fixed) for song in songs)]
    known = [gain for gain in gains if gain is not None]
    return min(known) if len(known) == len(gains) else None


class Media:
    """The sounds of a page. Other files in its folder are removed at the end."""

    def __init__(self, run: RunDir) -> None:
        self.folder, self.used = run.page.parent / "media", set[Path]()

    def add(self, song: str, name: str, sound: Sound, made_of: str, *, lossless: bool, beside: Sound | None) -> Track:
        """Write a sound as a track of a song.

        Args:
            song: its key. made_of: tells this sound from any other that could stand there: `stamp`. beside: see `tracks.write`.
        """
        folder = self.folder / song / name
        self.used.add(folder)
        return tracks.write(folder, sound, FLAC if lossless else OPUS, made_of, beside)

    def remove_others(self) -> None:
        """Remove what an earlier page played and this one does not, so that nobody sends it."""
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before it
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
    """The factor from a file with its own gain to the gain of all of a song, both in dB; 1 where they are not known."""
    return 1.0 if own is None or gain is None else flac.factor(gain - own)

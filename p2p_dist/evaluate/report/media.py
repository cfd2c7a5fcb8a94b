"""Write the folder of audio clips and images beside the page's index.html.

Pictures are hard links where possible. Sounds are clips: the beginnings of the evaluations' files, at 16 bits, all of one song
at one gain, so that they can be compared whatever the gains of the files are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import soundfile

from p2p_dist.audio import flac
from p2p_dist.common import files
from p2p_dist.run.rundir import RunDir

CLIP = 15.0
"""Seconds of each sound that the page holds; the whole files are in evaluations/."""


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
    """The files that the page shows. Other files in its folder are removed at the end."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.page, self.used = run, run.page.parent, set[Path]()

    def add_picture(self, path: Path) -> str:
        """Put a picture of the evaluations there; returns its relative address."""
        target = self._target(path)
        files.link_or_copy(path, target)
        return self._address(target)

    def add_clip(self, path: Path, begins: float, own: float | None, gain: float | None) -> str:
        """Put the first seconds of a sound file of the evaluations there; returns its relative address.

        Args:
            begins: seconds of the song before it. own: its gain in dB, and `gain` that of the clip; where they are not known
                the clip is as loud as the file.
        """
        target = self._target(path)
        written = path.stat().st_mtime_ns
        with soundfile.SoundFile(path) as source:
            frames = min(source.frames, round(CLIP * source.samplerate))
            if not _is_clip(target, written, frames, gain):
                sound = source.read(frames, dtype="float32", always_2d=True)
                if gain is not None and own is not None:
                    sound /= flac.factor(own)
                flac.write(target, sound, source.samplerate, 16, round(begins * source.samplerate), gain)
                os.utime(target, ns=(written, written))
        return self._address(target)

    def remove_others(self) -> None:
        """Remove what an earlier page showed and this one does not, so that nobody sends it."""
        for path in (self.page / "media").rglob("*"):
            if path.is_file() and path not in self.used:
                path.unlink()

    def _target(self, path: Path) -> Path:
        # One folder a checkpoint is enough: what lies in its audio/ and spectrograms/ differs in the suffix.
        target = self.page / "media" / path.relative_to(self.run.evaluations).parts[0] / path.name
        assert target not in self.used
        self.used.add(target)
        return target

    def _address(self, target: Path) -> str:
        return quote(target.relative_to(self.page).as_posix())


def _is_clip(path: Path, written: int, frames: int, gain: float | None) -> bool:
    """Whether an earlier page made this very clip: it has the time of its source, set when it was whole."""
    try:
        if path.stat().st_mtime_ns != written:
            return False
        info, tags = soundfile.info(path), flac.read_tags(path)
    except (OSError, ValueError, soundfile.LibsndfileError):
        return False
    same = tags.get("GAIN_DB") == (None if gain is None else f"{gain:.9g}")
    return same and info.subtype == "PCM_16" and info.frames == frames

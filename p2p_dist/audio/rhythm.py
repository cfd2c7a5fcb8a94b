"""Hear tempo and beats of a song, of audio that comes in blocks."""

from __future__ import annotations

import numpy as np

from p2p_dist.audio.attacks import COARSE, FINE, Rises, attack_times
from p2p_dist.audio.beats import MUSIC_LATE, Beats, track_beats

SHORTEST = 4.0
"""Seconds of audio that a tempo needs."""


class Rhythm:
    """The attacks of audio that comes in blocks: about 1 kB a second."""

    def __init__(self, peak: float) -> None:
        """Args: peak: the loudest sample of the song."""
        self.coarse, self.fine = Rises(peak, COARSE), Rises(peak, FINE)

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, float32 (samples,) at `attacks.RATE`."""
        self.coarse.add(block)
        self.fine.add(block)

    def finish(self) -> None:
        """Process the end of the audio; call it after the last `add`."""
        self.coarse.finish()
        self.fine.finish()

    def beats(
        self, *, late: float = MUSIC_LATE, bpm: float | None = None, first: float | None = None, half_beat: bool = False
    ) -> Beats | None:
        """Return tempo and beats, assumed constant; None without onsets or if the audio is too short.

        Args:
            late, bpm, first, half_beat: see `track_beats`.

        Raises:
            ValueError: `bpm` or `first` can't be.
        """
        rise, fine = self.coarse.envelope(), self.fine.envelope()
        if len(rise) * COARSE.frame < SHORTEST:
            rise = rise[:0]
        attack = attack_times(fine, FINE.frame)
        return track_beats(rise, COARSE.frame, attack=attack, late=late, bpm=bpm, first=first, half_beat=half_beat)


def beats_in(sound: np.ndarray, late: float = MUSIC_LATE) -> Beats | None:
    """Return the beats of a whole song, float32 (samples,) at `attacks.RATE`; None without onsets."""
    heard = Rhythm(float(np.abs(sound).max(initial=0.0)))
    heard.add(sound)
    heard.finish()
    return heard.beats(late=late)

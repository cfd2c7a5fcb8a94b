"""Detect tempo and beats in audio that arrives in blocks."""

from __future__ import annotations

import numpy as np

from p2p_dist.audio.attacks import COARSE, FINE, Rises, attack_times
from p2p_dist.audio.beats import DRUMS_LATE, MUSIC_LATE, Beats, track_beats
from p2p_dist.audio.tempo import Tempo

SHORTEST = 4.0
"""Seconds of audio that a tempo needs."""


class Rhythm:
    """The attacks of audio that arrives in blocks, about 1 kB a second, and the region of its tempo.

    Args:
        peak: the largest absolute sample of the song. drums: whether it has drums; the tempo network knows music without.
    """

    def __init__(self, peak: float, *, drums: bool = False) -> None:
        self.coarse, self.fine = Rises(peak, COARSE), Rises(peak, FINE)
        self.tempo = None if drums else Tempo()
        self.late = DRUMS_LATE if drums else MUSIC_LATE

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, float32 (samples,) at `attacks.RATE`."""
        self.coarse.add(block)
        self.fine.add(block)
        if self.tempo is not None:
            self.tempo.add(block)

    def finish(self) -> None:
        """Process the end of the audio; call it after the last `add`."""
        self.coarse.finish()
        self.fine.finish()
        if self.tempo is not None:
            self.tempo.finish()

    def beats(self, *, bpm: float | None = None, first: float | None = None, half_beat: bool = False) -> Beats | None:
        """Return tempo and beats; None without onsets or if the audio is too short.

        Args:
            bpm, first, half_beat: see `track_beats`.

        Raises:
            ValueError: `bpm` or `first` can't be.
        """
        rise, fine = self.coarse.envelope(), self.fine.envelope()
        if len(rise) * COARSE.frame < SHORTEST:
            rise = rise[:0]
        return track_beats(
            rise,
            COARSE.frame,
            attack=attack_times(fine, FINE.frame),
            late=self.late,
            region=None if self.tempo is None else self.tempo.region(),
            bpm=bpm,
            first=first,
            half_beat=half_beat,
        )


def beats_in(sound: np.ndarray, late: float = MUSIC_LATE) -> Beats | None:
    """Return the beats of a whole song, float32 (samples,) at `attacks.RATE`; None without onsets.

    Args:
        late: DRUMS_LATE if the song has drums.
    """
    heard = Rhythm(float(np.abs(sound).max(initial=0.0)), drums=late == DRUMS_LATE)
    heard.add(sound)
    heard.finish()
    return heard.beats()

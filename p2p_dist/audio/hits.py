"""Find the hits in a drum stem, tell kick, snare and hats apart by band, and write them as General MIDI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.spectrogram import mel_filters, mel_power_of_part

RATE, N_FFT, HOP, MELS, LOWEST = 22050, 1024, 128, 64, 30.0
FRAME = HOP / RATE
"""Seconds of a frame: 5.8 ms."""

KICK, SNARE, CLOSED_HAT, OPEN_HAT, MID_TOM = 36, 38, 42, 46, 47
"""Notes of the General MIDI percussion map."""

_BANDS = ((0.0, 150.0), (200.0, 2500.0), (5000.0, np.inf))
_FLOOR = 1e-6
"""Power over which a band counts as sound, full scale 1 in the song's loudest sample."""
_RISE = 9.0  # dB within 6 frames, as long as a transform takes to rise, that make an onset in a band
_QUIET = 18.0  # dB below the loudest hits of a band; quieter onsets are crosstalk
_SPACE = 9  # frames from one onset of a band to the next: 52 ms
_TOGETHER = 4  # frames within which onsets of several bands are one hit: 23 ms
_NOISE = 20.0  # dB by which the highest band of a snare may lie under its middle
_RING, _OPEN = 26, 10.0  # an open hat is after 150 ms less than 10 dB down
_TICKS = 480  # of a quarter note


@dataclass(frozen=True)
class Hit:
    """One note. seconds: from the beginning. note: of the percussion map. velocity: 1 to 127."""

    seconds: float
    note: int
    velocity: int


class Bands:
    """The power in three bands of audio that arrives in blocks: about 2 kB a second.

    Args:
        peak: the largest absolute sample of the song.
    """

    def __init__(self, peak: float) -> None:
        filters = mel_filters(RATE, N_FFT, MELS, LOWEST).toarray()
        centres = filters.argmax(axis=1) * RATE / N_FFT
        self.bands = [(centres >= low) & (centres < high) for low, high in _BANDS]
        self.floor = np.float32(_FLOOR * max(peak, 1e-3) ** 2)
        self.held = np.zeros(N_FFT // 2, np.float32)
        self.powers: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, float32 (samples,) at `RATE`."""
        self.held = np.concatenate([self.held, block])
        frames = (len(self.held) - N_FFT) // HOP + 1
        if frames < 1:
            return
        power = np.maximum(
            mel_power_of_part(self.held[: (frames - 1) * HOP + N_FFT], RATE, N_FFT, HOP, MELS, LOWEST), self.floor
        )
        self.held = self.held[frames * HOP :].copy()
        self.powers.append(np.stack([power[band].sum(axis=0) for band in self.bands], axis=1))

    def finish(self) -> None:
        """Process the end of the audio; call it after the last `add`."""
        self.add(np.zeros(N_FFT // 2, np.float32))

    def hits(self) -> list[Hit]:
        """Return the hits, in order of time."""
        if not self.powers:
            return []
        db = 10 * np.log10(np.concatenate(self.powers))
        onsets = [self._onsets(band) for band in db.T]
        found: list[Hit] = []
        low, mid, high = (dict(zip(*one, strict=True)) for one in onsets)
        for frame, loud in low.items():
            found.append(Hit(frame * FRAME, KICK, _velocity(loud)))
        taken = []
        for frame, loud in mid.items():
            # A kick also has energy in the middle band. A snare is noise, which is loud up to the highest band.
            noise, stroke = _near(frame, high), db[frame : frame + 6].max(axis=0)
            if noise is not None:
                taken.append(noise)
            if noise is not None or stroke[2] > stroke[1] - _NOISE:
                found.append(Hit(frame * FRAME, SNARE, _velocity(max(loud, loud if noise is None else high[noise]))))
        for frame, loud in high.items():
            if frame not in taken:
                later = db[min(frame + _RING, len(db) - 1), 2]
                ring = db[frame : frame + 3, 2].max() - later < _OPEN
                found.append(Hit(frame * FRAME, OPEN_HAT if ring else CLOSED_HAT, _velocity(loud)))
        return sorted(found, key=lambda hit: (hit.seconds, hit.note))

    def _onsets(self, db: np.ndarray) -> tuple[list[int], list[float]]:
        """Return the frames of a band's onsets, and the level of each, dB relative to the 90 % quantile of all onsets."""
        before = scipy.ndimage.minimum_filter1d(db, 6, origin=2)  # of a frame and the five before it
        rise = db - before
        loudest = scipy.ndimage.maximum_filter1d(db, 7, origin=-3)  # of a frame and the six after it
        top = float(np.quantile(loudest[rise >= _RISE], 0.9)) if (rise >= _RISE).any() else 0.0
        peaks = (rise >= _RISE) & (rise == scipy.ndimage.maximum_filter1d(rise, _SPACE)) & (loudest > top - _QUIET)
        frames: list[int] = []
        for frame in np.flatnonzero(peaks):
            if not frames or frame - frames[-1] >= _SPACE:
                frames.append(int(frame))
        # The rise is steepest one frame behind the stroke.
        return [max(frame - 1, 0) for frame in frames], [float(loudest[frame] - top) for frame in frames]


def _near(frame: int, others: dict[int, float]) -> int | None:
    """Return the onset in another band that belongs to the same hit."""
    near = [other for other in others if abs(other - frame) <= _TOGETHER]
    return min(near, key=lambda other: abs(other - frame), default=None)


def _velocity(loud: float) -> int:
    """Return the MIDI velocity of a hit, `loud` dB from the loudest hits of its band: 112 at 0 dB, 56 at -18 dB."""
    return int(np.clip(round(112 + loud * 56 / _QUIET), 1, 127))


def write_midi(path: Path, hits: Iterator[Hit] | list[Hit], beats: Beats | None, title: str) -> None:
    """Write hits as a MIDI file of one track on the percussion channel, at this tempo (120 beats a minute where unknown).

    The file starts at the start of the audio, so both are synchronous. Hits are not quantised.
    """
    import mido

    bpm = 120.0 if beats is None else beats.bpm
    tempo = mido.bpm2tempo(bpm)
    midi = mido.MidiFile(type=0, ticks_per_beat=_TICKS, charset="utf-8")
    lane = mido.MidiTrack()
    midi.tracks.append(lane)
    lane.append(mido.MetaMessage("track_name", name=title))
    lane.append(mido.MetaMessage("set_tempo", tempo=tempo))
    events: list[tuple[int, int, mido.Message]] = []
    ended: dict[int, int] = {}  # note -> its last note-off, which the next hit may bring forward: it would end that one
    for hit in hits:
        tick = round(mido.second2tick(hit.seconds, _TICKS, tempo))
        if hit.note in ended and events[ended[hit.note]][0] > tick:
            events[ended[hit.note]] = (tick, *events[ended[hit.note]][1:])
        events.append((tick, 1, mido.Message("note_on", channel=9, note=hit.note, velocity=hit.velocity)))
        ended[hit.note] = len(events)
        events.append((tick + _TICKS // 8, 0, mido.Message("note_off", channel=9, note=hit.note)))
    at = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        lane.append(message.copy(time=tick - at))
        at = tick
    midi.save(path)

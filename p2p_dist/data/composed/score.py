"""Compose a song from a seed: sections of chords, bass, melody and drums in one style, at a constant tempo.

All times are in beats. Nothing is taken from existing music: progressions, lines and melodies are drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from p2p_dist.data.composed import grooves
from p2p_dist.data.composed.grooves import BASS_LINES, CHORD_RHYTHMS, GROOVES, STYLES, Style

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10)}
_PROGRESSIONS: tuple[tuple[int, ...], ...] = (
    (0, 3, 4, 0),
    (0, 4, 5, 3),
    (5, 3, 0, 4),
    (0, 5, 3, 4),
    (0, 0, 3, 3),
    (1, 4, 0, 0),
    (0, 2, 3, 4),
    (0, 6, 3, 0),
)
"""Degrees of the scale, one a bar."""

_BASSES, _KEYS = (32, 33, 34, 35, 38, 39), (0, 1, 4, 5, 6, 16, 18, 24, 25, 26, 27, 28, 48, 50, 62, 80, 88, 90)
_LEADS = (22, 26, 40, 52, 53, 56, 64, 65, 66, 68, 71, 73, 80, 81, 82)
"""Programs of General MIDI, counted from 0."""

Motif = list[tuple[int, int, int]]
"""A bar of melody: first sixteenth note, length in sixteenth notes, degree over the root."""

_FORM = ("intro", "verse", "chorus", "verse", "break", "chorus", "bridge", "chorus")


@dataclass(frozen=True)
class Note:
    """beat: of its start. length: beats. pitch: MIDI. velocity: 1 to 127."""

    beat: float
    length: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Line:
    """What one instrument plays. program: of General MIDI, from 0; None for drums. volume: MIDI, 0 to 127."""

    program: int | None
    volume: int
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Score:
    """A composed song. microseconds: of a beat. beats: how many. lines: stem -> its instruments. sections: name, first beat."""

    style: str
    microseconds: int
    beats_per_bar: int
    swing: float
    beats: int
    lines: dict[str, list[Line]]
    sections: list[tuple[str, int]]

    @property
    def bpm(self) -> float:
        """Beats a minute."""
        return 60e6 / self.microseconds


def compose(seed: int, number: int, seconds: float) -> Score:
    """Compose song `number` of a seed, at least so many seconds long. One version of numpy always composes the same song.

    Args:
        number: from 0. Consecutive numbers go through the styles.
    """
    random = np.random.default_rng([seed, number])
    name = list(STYLES)[number % len(STYLES)]
    style = STYLES[name]
    low, high = style.tempo
    microseconds = round(60e6 / (low * (high / low) ** random.random()))
    bar = style.beats_per_bar
    bars = int(np.ceil(seconds * 1e6 / microseconds / bar / 4)) * 4
    band = _Band(random, style, round(float(random.uniform(*style.swing)), 3), 1e6 / microseconds)
    sections: list[tuple[str, int]] = []
    at = 0
    while at < bars:
        part = _FORM[len(sections) % len(_FORM)]
        length = min(4 if part in ("intro", "break") else int(random.choice((4, 8))), bars - at)
        band.play(part, at * bar, length)
        sections.append((part, at * bar))
        at += length
    return Score(name, microseconds, bar, band.swing, bars * bar, band.lines, sections)


class _Band:
    """The players of one song, with what each section needs: chords, patterns, a motif."""

    def __init__(self, random: np.random.Generator, style: Style, swing: float, beats_a_second: float) -> None:
        self.random, self.style, self.swing, self.bar = random, style, swing, style.beats_per_bar
        self.loose = beats_a_second * float(random.choice((0.0, 0.003, 0.006, 0.01)))  # beats: deviation of a player's timing
        self.scale = SCALES[str(random.choice(list(SCALES)))]
        self.key = int(random.integers(0, 12))
        self.lines: dict[str, list[Line]] = {
            "drums": [Line(None, 110)],
            "bass": [Line(int(random.choice(_BASSES)), 105)],
            "other": [Line(int(program), int(random.integers(70, 100))) for program in random.choice(_KEYS, 2, replace=False)],
            "vocals": [Line(int(random.choice(_LEADS)), 95)],
        }
        self.silent_lead = random.random() < 0.25
        self.parts: dict[str, tuple[tuple[int, ...], str, str, list[str], Motif]] = {}

    def play(self, part: str, begin: int, bars: int) -> None:
        """Write a section of so many bars that begins at this beat."""
        if part not in self.parts:
            pick = self.random.choice
            chords = _PROGRESSIONS[self.random.integers(len(_PROGRESSIONS))]
            rhythms = [str(pick(self.style.chords)) for _ in self.lines["other"]]
            self.parts[part] = chords, str(pick(self.style.grooves)), str(pick(self.style.bass)), rhythms, self._motif()
        chords, groove, bass, rhythms, motif = self.parts[part]
        drummed = part != "break" and not (part == "intro" and self.random.random() < 0.5)
        low = part != "break" or self.random.random() < 0.5
        for number in range(bars):
            at, root = begin + number * self.bar, chords[number % len(chords)]
            if drummed:
                self._drums(GROOVES[groove], at, crash=number == 0, fill=number == bars - 1)
            if low:
                self._bass(bass, at, root, chords[(number + 1) % len(chords)])
            for line, rhythm in zip(self.lines["other"][: 1 if part in ("intro", "break") else 2], rhythms, strict=False):
                self._chord(line, rhythm, at, root)
            if part != "intro" and not self.silent_lead and (number % 4 != 3 or self.random.random() < 0.5):
                self._melody(motif, at, root)

    def _at(self, beat: int, step: int) -> float:
        """Return the time of a sixteenth note, swung and played by a human, in beats."""
        whole, quarter = divmod(step, 4)
        place = (0, self.swing / 2, self.swing, (1 + self.swing) / 2)[quarter]
        return max(beat + whole + place + self.loose * float(np.clip(self.random.normal(), -2, 2)), 0.0)

    def _velocity(self, stroke: str) -> int:
        return int(np.clip((100 if stroke == "x" else 62) + self.random.normal() * 6, 1, 127))

    def _drums(self, groove: grooves.Groove, at: int, *, crash: bool, fill: bool) -> None:
        lane = self.lines["drums"][0].notes
        filled = self.bar * 4 - (int(self.random.choice((2, 4, 8))) if fill else 0)
        for pitch, pattern in groove.items():
            lane.extend(
                Note(self._at(at, step), 0.2, pitch, self._velocity(stroke))
                for step, stroke in enumerate(pattern[:filled])
                if stroke != "." and (stroke == "x" or self.random.random() < 0.85)
            )
        for step in range(filled, self.bar * 4):
            if self.random.random() < 0.75:
                drum = int(self.random.choice((grooves.SNARE, grooves.HIGH_TOM, grooves.MID_TOM, grooves.LOW_TOM)))
                lane.append(Note(self._at(at, step), 0.2, drum, self._velocity("x")))
        if crash:
            lane.append(Note(self._at(at, 0), 1.0, grooves.CRASH, self._velocity("x")))

    def _pitch(self, degree: int, lowest: int) -> int:
        """Return the MIDI pitch of a degree of the scale, degree 0 being the key in the octave from `lowest`."""
        octave, place = divmod(degree, 7)
        return lowest + (self.key - lowest) % 12 + 12 * octave + self.scale[place]

    def _bass(self, name: str, at: int, root: int, following: int) -> None:
        steps = [step for step, stroke in enumerate(BASS_LINES[name]) if stroke != "."]
        for place, step in enumerate(steps):
            length = ((*steps, self.bar * 4)[place + 1] - step) / 4
            degree = root
            if name == "walking":
                degree = root + (0, 2, 4, following - root + int(self.random.choice((-1, 1))))[place]
            elif place and self.random.random() < 0.3:
                degree = root + int(self.random.choice((4, 7, 2)))
            note = Note(self._at(at, step), 0.9 * length, self._pitch(degree, 28), self._velocity("x"))
            self.lines["bass"][0].notes.append(note)

    def _chord(self, line: Line, name: str, at: int, root: int) -> None:
        steps = [(step, stroke) for step, stroke in enumerate(CHORD_RHYTHMS[name]) if stroke != "."]
        ends = [step for step, _ in steps[1:]] + [self.bar * 4]
        short = float(self.random.choice((0.5, 0.95)))
        for place, ((step, stroke), end) in enumerate(zip(steps, ends, strict=True)):
            chord = (root, root + 2, root + 4, root + 7)
            degrees = (chord[(0, 1, 2, 3, 2, 1)[place % 6]],) if "arpeggio" in name else chord[:3]
            when, loud = self._at(at, step), self._velocity(stroke) - 12
            line.notes.extend(Note(when, short * (end - step) / 4, self._pitch(degree, 52), loud) for degree in degrees)

    def _motif(self) -> Motif:
        found: Motif = []
        step, degree = int(self.random.choice((0, 0, 2, 4))), int(self.random.choice((0, 2, 4)))
        while step < self.bar * 4:
            length = int(self.random.choice((1, 2, 2, 3, 4, 4, 6, 8)))
            if self.random.random() < 0.8:
                found.append((step, length, degree))
            degree = int(np.clip(degree + self.random.choice((-2, -1, -1, 0, 1, 1, 2)), -4, 9))
            step += length
        return found

    def _melody(self, motif: Motif, at: int, root: int) -> None:
        lane = self.lines["vocals"][0].notes
        for step, length, degree in motif:
            if self.random.random() < 0.9:
                moved = root + degree + (int(self.random.choice((-1, 1))) if self.random.random() < 0.2 else 0)
                lane.append(Note(self._at(at, step), 0.9 * length / 4, self._pitch(moved, 60), self._velocity("x")))

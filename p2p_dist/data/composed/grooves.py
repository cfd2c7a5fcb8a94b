"""The styles of composed songs: tempo, metre, swing, and patterns of a bar for drums, bass and chords.

A pattern is a bar in sixteenth notes: `x` a stroke, `o` a soft one, `.` none; 16 places are four beats, 12 are three.
"""

from __future__ import annotations

from dataclasses import dataclass

KICK, SIDE_STICK, SNARE, CLOSED_HAT, PEDAL_HAT, OPEN_HAT = 36, 37, 38, 42, 44, 46
CRASH, RIDE, LOW_TOM, MID_TOM, HIGH_TOM, TAMBOURINE, SHAKER = 49, 51, 45, 47, 50, 54, 82
"""Notes of the General MIDI percussion map."""

CLASSES = {
    **dict.fromkeys((KICK,), "kick"),
    **dict.fromkeys((SIDE_STICK, SNARE), "snare"),
    **dict.fromkeys((CLOSED_HAT, PEDAL_HAT, OPEN_HAT), "hat"),
    **dict.fromkeys((CRASH, RIDE, LOW_TOM, MID_TOM, HIGH_TOM, TAMBOURINE, SHAKER), "other"),
}
"""Note -> class of drum."""

Groove = dict[int, str]
"""Note -> pattern of a bar."""

_EIGHTHS = "x.o.x.o.x.o.x.o."

GROOVES: dict[str, Groove] = {
    "rock": {KICK: "x.......x.x.....", SNARE: "....x.......x...", CLOSED_HAT: _EIGHTHS},
    "rock, pushed": {KICK: "x.....x...x....o", SNARE: "....x.......x..o", CLOSED_HAT: _EIGHTHS},
    "rock, ride": {KICK: "x..x..x.x..x....", SNARE: "....x.......x...", RIDE: _EIGHTHS},
    "every beat": {KICK: "x.....x.x.....x.", SNARE: "x...x...x...x...", TAMBOURINE: "..x...x...x...x."},
    "half time": {KICK: "x.....x...o.....", SNARE: "........x.......", CLOSED_HAT: "x.o.x.o.x.o.x.oo"},
    "ballad": {KICK: "x.........x.....", SIDE_STICK: "....x.......x...", CLOSED_HAT: _EIGHTHS},
    "floor": {KICK: "x...x...x...x...", SNARE: "....x.......x...", OPEN_HAT: "..x...x...x...x.", SHAKER: "xoxoxoxoxoxoxoxo"},
    "floor, bare": {KICK: "x...x...x...x...", CLOSED_HAT: "..x...x...x...xo"},
    "funk": {KICK: "x..x..o...x..o..", SNARE: "....x..o.o..x..o", CLOSED_HAT: "x.oox.oox.oox.oo"},
    "funk, displaced": {KICK: "x.x....x..x..x..", SNARE: "....x..o.o.o...x", CLOSED_HAT: "xoxoxoxoxoxoxoxo"},
    "breakbeat": {KICK: "x.x.......xx....", SNARE: "....x..o.o..x..o", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
    "two step": {KICK: "x.........x.....", SNARE: "....x.......x...", RIDE: "x.o.x.o.x.o.x.o."},
    "one drop": {KICK: "........x.......", SIDE_STICK: "........x.......", CLOSED_HAT: "x.o.x.o.x.o.x.o."},
    "bossa": {KICK: "x..ox..ox..ox..o", SIDE_STICK: "x..x..x...x..x..", SHAKER: "xoxoxoxoxoxoxoxo"},
    "train": {KICK: "x...x...x...x...", SNARE: "oxoxxxoxoxoxxxox"},
    "swing": {RIDE: "x...x.o.x...x.o.", PEDAL_HAT: "....x.......x...", KICK: "o...o...o...o..."},
    "shuffle": {KICK: "x.....o.x.....o.", SNARE: "....x.......x...", CLOSED_HAT: "x.o.x.o.x.o.x.o."},
    "double kick": {KICK: "xxxxxxxxxxxxxxxx", SNARE: "....x.......x...", CRASH: "x...x...x...x..."},
    "toms": {KICK: "x...x...x...x...", LOW_TOM: "..x..x....x..x..", HIGH_TOM: ".......x.......x"},
    "waltz": {KICK: "x...........", SNARE: "....x...x...", CLOSED_HAT: "x.o.x.o.x.o."},
    "waltz, swing": {RIDE: "x...x.o.x.o.", PEDAL_HAT: "....x.......", KICK: "x.......o..."},
    "waltz, rock": {KICK: "x.....x.....", SNARE: "......x.....", CLOSED_HAT: "xoxoxoxoxoxo"},
}

BASS_LINES: dict[str, str] = {
    "whole": "x...............",
    "beats": "x...x...x...x...",
    "halves": "x.......x.......",
    "eighths": "x.x.x.x.x.x.x.x.",
    "off the beat": "..x...x...x...x.",
    "three three two": "x.....x.....x...",
    "pushed": "x.....xx..x...x.",
    "dotted": "x..x..x.x..x..x.",
    "sixteenths": "x.xxx.xxx.xxx.xx",
    "walking": "x...x...x...x...",
    "waltz": "x...........",
    "waltz, beats": "x...x...x...",
    "waltz, dotted": "x.....x...x.",
}

CHORD_RHYTHMS: dict[str, str] = {
    "whole": "x...............",
    "beats": "x...x...x...x...",
    "eighths": "x.o.x.o.x.o.x.o.",
    "after the beat": "..x...x...x...x.",
    "back beat": "....x.......x...",
    "three three two": "x.....x.....x...",
    "charleston": "x.....x.........",
    "pushed": "x..x..x...x..x..",
    "dotted": "x..x..x..x..x.x.",
    "sixteenths": "x.oox.oox.oox.oo",
    "arpeggio": "x.x.x.x.x.x.x.x.",
    "fast arpeggio": "xxxxxxxxxxxxxxxx",
    "waltz": "....x...x...",
    "waltz, arpeggio": "x.x.x.x.x.x.",
    "waltz, whole": "x...........",
}


@dataclass(frozen=True)
class Style:
    """What may be drawn for a song. tempo: beats a minute. swing: place of a beat's second eighth note (0.5: straight)."""

    tempo: tuple[float, float]
    beats_per_bar: int
    swing: tuple[float, float]
    grooves: tuple[str, ...]
    bass: tuple[str, ...]
    chords: tuple[str, ...]


_STRAIGHT = (0.5, 0.5)

STYLES: dict[str, Style] = {
    "rock": Style(
        (84, 180),
        4,
        _STRAIGHT,
        ("rock", "rock, pushed", "rock, ride", "every beat", "half time"),
        ("eighths", "beats", "pushed", "dotted"),
        ("eighths", "beats", "whole", "pushed", "back beat"),
    ),
    "ballad": Style(
        (60, 96),
        4,
        _STRAIGHT,
        ("ballad", "half time", "rock"),
        ("whole", "halves", "three three two", "dotted"),
        ("arpeggio", "fast arpeggio", "whole", "beats", "dotted"),
    ),
    "club": Style(
        (110, 150),
        4,
        _STRAIGHT,
        ("floor", "floor, bare"),
        ("off the beat", "sixteenths", "eighths", "dotted"),
        ("after the beat", "pushed", "fast arpeggio", "whole", "dotted"),
    ),
    "funk": Style(
        (80, 120),
        4,
        (0.5, 0.56),
        ("funk", "funk, displaced", "breakbeat"),
        ("pushed", "sixteenths", "dotted", "three three two"),
        ("sixteenths", "pushed", "after the beat", "charleston"),
    ),
    "breaks": Style(
        (130, 200),
        4,
        _STRAIGHT,
        ("breakbeat", "two step", "train"),
        ("halves", "three three two", "pushed", "whole"),
        ("whole", "arpeggio", "three three two", "charleston"),
    ),
    "reggae": Style((64, 100), 4, (0.5, 0.6), ("one drop", "toms"), ("pushed", "dotted"), ("after the beat", "back beat")),
    "bossa": Style((90, 160), 4, _STRAIGHT, ("bossa",), ("dotted", "three three two", "halves"), ("pushed", "charleston")),
    "swing": Style(
        (90, 200), 4, (0.6, 0.67), ("swing", "shuffle"), ("walking", "beats", "halves"), ("charleston", "beats", "back beat")
    ),
    "shuffle": Style(
        (70, 140),
        4,
        (0.62, 0.67),
        ("shuffle", "rock"),
        ("eighths", "walking", "pushed"),
        ("eighths", "after the beat", "arpeggio"),
    ),
    "metal": Style(
        (100, 200),
        4,
        _STRAIGHT,
        ("double kick", "rock", "half time"),
        ("eighths", "sixteenths", "dotted"),
        ("eighths", "dotted", "sixteenths"),
    ),
    "march": Style(
        (90, 130), 4, _STRAIGHT, ("train", "toms", "every beat"), ("beats", "halves"), ("after the beat", "beats", "eighths")
    ),
    "waltz": Style(
        (84, 190),
        3,
        (0.5, 0.5),
        ("waltz", "waltz, rock"),
        ("waltz", "waltz, beats", "waltz, dotted"),
        ("waltz", "waltz, arpeggio", "waltz, whole"),
    ),
    "jazz waltz": Style(
        (100, 200), 3, (0.6, 0.67), ("waltz, swing",), ("waltz, beats", "waltz, dotted"), ("waltz", "waltz, whole")
    ),
}

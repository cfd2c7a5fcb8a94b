"""Are tempo and beats found in songs without their drums? By the comb alone, and with the network that tells its region.

python tests/benchmarks/beats.py --data EVR --data PRACTICE --composed COMPOSED

The input is bass, other and vocals. Truth: the beats tracked in the drums; of composed songs (launch/compose.py) exact ones.
Right is a tempo within 1 %; beats and eighth notes where 80 % lie within 35 ms of true ones. Lateness is the median distance of
the beats from true eighth notes, of the songs with the right tempo and eighth notes, in ms: first with attacks as they are
found, which is what `audio/beats.py` subtracts as constants, then with the constants.

With --drift: the same songs with their time bent, so that their tempo drifts in a way that is known (their pitch does, too).
Shares of the beats found that are near true beats or eighth notes, with a constant tempo and as `track_beats` finds them.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
from safetensors.numpy import load_file

from p2p_dist.audio import beats, layouts, stems
from p2p_dist.audio.attacks import COARSE, FINE, RATE, Rises, attack_times
from p2p_dist.audio.beats import DRUMS_LATE, MUSIC_LATE, Beats, track_beats
from p2p_dist.audio.tempo import Tempo
from p2p_dist.common import records, schemas

_NEAR = 0.035  # seconds
_NEARER = 0.0175
_CLICK = "click"
DRIFTS = (_CLICK, "sway", "ritard", "wander")
"""How the tempo drifts: not at all; 3 % up and down in 20 to 60 s; from 2 % above to 5 % below, evenly; at random, deviation
1.5 %, smooth over some 10 s."""


Weights = Mapping[str, np.ndarray] | None
"""Of the tempo network; None: those of the package."""


@dataclass(frozen=True)
class Heard:
    """What the tracker needs of a sound: coarse envelope, attacks, and the region of the tempo."""

    rise: np.ndarray
    attack: tuple[np.ndarray, np.ndarray]
    seconds: float

    def beats(self, late: float, region: float | None = None) -> Beats | None:
        return track_beats(self.rise, COARSE.frame, attack=self.attack, late=late, region=region)


def heard(sound: np.ndarray) -> Heard:
    """Listen to a sound, (samples,) at 22 050 Hz."""
    both = [Rises(float(np.abs(sound).max(initial=0.0)), transform) for transform in (COARSE, FINE)]
    for rises in both:
        rises.add(sound)
        rises.finish()
    coarse, fine = (rises.envelope() for rises in both)
    return Heard(coarse, attack_times(fine, FINE.frame), len(sound) / RATE)


def region_of(sound: np.ndarray, weights: Weights = None) -> float | None:
    """What the tempo network says of a sound, (samples,) at 22 050 Hz."""
    tempo = Tempo(weights)
    tempo.add(sound)
    tempo.finish()
    return tempo.region()


def judged(found: Beats | None, true: Beats, seconds: float) -> dict[str, float | bool]:
    """Whether tempo, beats and eighth notes are right, and how late the beats are, ms."""
    if found is None:
        return {"tempo": False, "offered": False, "beats": False, "eighths": False, "late": np.nan}
    beat = 60 / true.bpm

    def off(step: float) -> np.ndarray:
        return np.asarray((found.times(seconds) - true.first + step / 2) % step - step / 2)

    right = abs(found.bpm / true.bpm - 1) < 0.01
    eighths = right and bool((abs(off(beat / 2)) < _NEAR).mean() >= 0.8)
    late = float(np.median(off(beat / 2))) * 1000 if eighths else np.nan
    offered = right or any(abs(other.bpm / true.bpm - 1) < 0.01 for other in found.others)
    return {
        "tempo": right,
        "offered": offered,
        "beats": right and bool((abs(off(beat)) < _NEAR).mean() >= 0.8),
        "eighths": eighths,
        "late": late,
    }


def rows_of(folder: Path, composed: bool, weights: Weights) -> dict[str, list[dict[str, dict[str, float | bool]]]]:
    """Judge every song of a folder; by split and by the first word of the name."""
    rows: dict[str, list[dict[str, dict[str, float | bool]]]] = {}
    for source in layouts.find_songs(folder):
        rate, (music, drums) = stems.load_sums(source, [("bass", "other", "vocals"), ("drums",)])
        melody_sound = stems.mono(music.sound, rate, RATE)
        melody, rhythm = heard(melody_sound), heard(stems.mono(drums.sound, rate, RATE))
        exact = Beats(float(records.read(source.path / "song.json", schemas.COMPOSED)["bpm"]), 0.0) if composed else None
        true = exact or rhythm.beats(DRUMS_LATE)
        if true is None:
            continue
        found = {"comb": judged(melody.beats(MUSIC_LATE), true, melody.seconds)}
        found["network"] = judged(melody.beats(MUSIC_LATE, region_of(melody_sound, weights)), true, melody.seconds)
        found["raw"] = judged(melody.beats(0.0), exact or rhythm.beats(0.0) or true, melody.seconds)
        if exact:
            found["drums"] = judged(rhythm.beats(0.0), exact, rhythm.seconds)
        name = f"{folder.name}, {'test' if source.split == 'test' else 'train'}: {source.name.split()[0]}"
        rows.setdefault(name, []).append(found)
    return rows


def time_map(drift: str, seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return times of a song whose tempo drifts, and the times that they are in the song with a click, seconds."""
    random, step = np.random.default_rng(seed), 0.05
    times = np.arange(0, seconds * 1.2 + step, step)
    if drift == "sway":
        faster = 0.03 * np.sin(2 * np.pi * (times / random.uniform(20, 60) + random.uniform()))
    elif drift == "ritard":
        faster = 0.02 - 0.07 * np.clip(times / seconds, 0, 1)
    else:
        walk = scipy.ndimage.gaussian_filter1d(random.normal(0, 1, len(times)), 4 / step)
        faster = 0.015 * (walk - walk.mean()) / walk.std()
    speed = 1 + faster
    return times, np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * step)])


def bent(sound: np.ndarray, times: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """Return a sound, (samples,) at 22 050 Hz, with its time bent, see `time_map`."""
    samples = int(float(np.interp(len(sound) / RATE, clicked, times)) * RATE)
    at = np.interp(np.arange(samples) / RATE, times, clicked) * RATE
    return np.asarray(scipy.ndimage.map_coordinates(sound, [at], order=3, mode="constant"), np.float32)


def near(found: np.ndarray, true: np.ndarray) -> list[float]:
    """Shares of beats that are within 35 ms of true beats and of eighth notes, then within 17.5 ms."""
    found = found[(found >= true[0] - 0.02) & (found <= true[-1] + 0.02)]
    if not len(found):
        return [0.0] * 4
    eighths = np.interp(np.arange(2 * len(true) - 1) / 2, np.arange(len(true)), true)
    off = []
    for grid in (true, eighths):
        after = np.clip(np.searchsorted(grid, found), 1, len(grid) - 1)
        off.append(np.minimum(abs(found - grid[after - 1]), abs(found - grid[after])))
    return [float((one < limit).mean()) for limit in (_NEAR, _NEARER) for one in off]


@dataclass(frozen=True)
class Followed:
    """One song, one drift. constant, found: see `near`. drifts: whether its tempo is said to. same: both are equal."""

    drifts: bool
    same: bool
    constant: list[float]
    found: list[float]


def followed(melody: Heard, region: float | None, true: np.ndarray) -> Followed | None:
    """Judge the beats of a song of known beats; None if it has no onsets."""
    score = beats._score(melody.rise, COARSE.frame)
    found = melody.beats(MUSIC_LATE, region)
    if score is None or found is None:
        return None
    steady = beats._steady(melody.rise, COARSE.frame, score, melody.attack, MUSIC_LATE, region, None, None, half_beat=False)
    same = found == steady and found.others == steady.others
    times = [near(one.times(melody.seconds), true) for one in (steady, found)]
    return Followed(bool(found.at), same, *times)


def drift_rows(folder: Path, composed: bool) -> dict[str, list[Followed]]:
    """Judge every song of a folder, with a click and with each drift."""
    rows: dict[str, list[Followed]] = {}
    for source in layouts.find_songs(folder):
        rate, (music, drums) = stems.load_sums(source, [("bass", "other", "vocals"), ("drums",)])
        melody, rhythm = (stems.mono(one.sound, rate, RATE) for one in (music, drums))
        exact = Beats(float(records.read(source.path / "song.json", schemas.COMPOSED)["bpm"]), 0.0) if composed else None
        tracked = exact or heard(rhythm).beats(DRUMS_LATE)
        if tracked is None:
            continue
        for drift in DRIFTS:
            sound, true = melody, tracked.times(len(melody) / RATE)
            if drift != _CLICK:
                seed = zlib.crc32(f"{drift}{folder.name}--{source.split}--{source.name}".encode())
                bend = time_map(drift, len(melody) / RATE, seed)
                sound, true = bent(melody, *bend), np.interp(true, bend[1], bend[0])
            if (one := followed(heard(sound), region_of(sound), true)) is not None:
                rows.setdefault(f"{folder.name}, {drift}", []).append(one)
    return rows


def print_drifts(rows: dict[str, list[Followed]]) -> None:
    """Print a table: shares are means over songs, in percent, with a constant tempo -> as found."""
    heads = ("beats, 35 ms", "eighth notes, 35 ms", "beats, 17.5 ms", "eighth notes, 17.5 ms")
    print(f"| songs | number | said to drift | unchanged | {' | '.join(heads)} | songs with 80 % of eighth notes in 35 ms |")
    print("| --- " * (5 + len(heads)) + "|")
    for name, songs in rows.items():
        means = [np.mean([getattr(song, kind) for song in songs], axis=0) * 100 for kind in ("constant", "found")]
        shares = " | ".join(f"{a:.0f} -> {b:.0f}" for a, b in zip(*means, strict=True))
        right = " -> ".join(str(sum(getattr(song, kind)[1] >= 0.8 for song in songs)) for kind in ("constant", "found"))
        counts = f"{sum(song.drifts for song in songs)} | {sum(song.same for song in songs)}"
        print(f"| {name} | {len(songs)} | {counts} | {shares} | {right} |")


def late_of(songs: list[dict[str, dict[str, float | bool]]], kind: str) -> list[float]:
    """Quartiles of the lateness, ms, the median in the middle."""
    found = [float(song[kind]["late"]) for song in songs if kind in song and np.isfinite(float(song[kind]["late"]))]
    return [float(value) for value in np.percentile(found, (25, 50, 75))] if found else [float("nan")] * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of songs, may be given again")
    parser.add_argument("--composed", type=Path, help="folder that launch/compose.py wrote")
    parser.add_argument("--weights", type=Path, help="file of tempo_network.py, in place of that of the package")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--drift", action="store_true", help="songs with their time bent")
    options = parser.parse_args()
    if options.drift:
        folders = [(folder, False) for folder in options.data] + ([(options.composed, True)] if options.composed else [])
        print_drifts({name: songs for one in folders for name, songs in drift_rows(*one).items()})
        return
    rows: dict[str, list[dict[str, dict[str, float | bool]]]] = {}
    weights = load_file(options.weights) if options.weights else None
    for folder in options.data:
        rows |= rows_of(folder, False, weights)
    if options.composed:
        rows |= rows_of(options.composed, True, weights)
    heads = [
        f"{kind}: {how}"
        for kind in ("tempo", "tempo or one offered", "beats", "eighth notes")
        for how in ("comb", "with network")
    ]
    print(f"| songs | number | {' | '.join(heads)} | late, ms: quartiles |")
    print("| --- " * (3 + len(heads)) + "|")
    table = {}
    for name, songs in rows.items():
        kinds = ("tempo", "offered", "beats", "eighths")
        counts = {how: [sum(bool(song[how][kind]) for song in songs) for kind in kinds] for how in ("comb", "network")}
        late = late_of(songs, "network")
        table[name] = {"songs": len(songs), **counts, "late_ms": late}
        pairs = " | ".join(f"{counts['comb'][k]} | {counts['network'][k]}" for k in range(len(kinds)))
        told = "none right" if np.isnan(late[1]) else f"{late[1]:.1f} ({late[0]:.1f} to {late[2]:.1f})"
        print(f"| {name} | {len(songs)} | {pairs} | {told} |")
    print()
    training = {name: songs for name, songs in rows.items() if ", train" in name}
    if options.composed:
        exact = [song for name, songs in training.items() if name.startswith(f"{options.composed.name},") for song in songs]
        found = late_of(exact, "drums")[1]
        constant = 1000 * DRUMS_LATE
        print(f"Attacks of drums are found {found:.1f} ms late in composed training songs; the constant is {constant:.1f}.")
    medians = [
        late_of([song for name, songs in training.items() if name.startswith(f"{folder.name},") for song in songs], "raw")[1]
        for folder in options.data
    ]
    if medians:
        constant = 1000 * (MUSIC_LATE - DRUMS_LATE)
        told = f"{np.nanmean(medians):.1f} ms in training songs, the mean of the folders' medians"
        print(f"Attacks of music are found later than those of its drums by {told}; the constant is {constant:.1f}.")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1, allow_nan=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

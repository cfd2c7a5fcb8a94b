"""Are tempo and beats found in songs without their drums? By the comb alone, and with the network that tells its region.

python tests/benchmarks/beats.py --data EVR --data PRACTICE --composed COMPOSED

The input is bass, other and vocals. Truth: the beats tracked in the drums; of composed songs (launch/compose.py) exact ones.
Right is a tempo within 1 %; beats and eighth notes where 80 % lie within 35 ms of true ones. Lateness is the median distance of
the beats from true eighth notes, of the songs with the right tempo and eighth notes, in ms: first with attacks as they are
found, which is what `audio/beats.py` subtracts as constants, then with the constants.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2p_dist.audio import layouts, stems
from p2p_dist.audio.attacks import COARSE, FINE, RATE, Rises, attack_times
from p2p_dist.audio.beats import DRUMS_LATE, MUSIC_LATE, Beats, track_beats
from p2p_dist.audio.tempo import Tempo
from p2p_dist.common import records, schemas

_NEAR = 0.035  # seconds


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


def region_of(sound: np.ndarray) -> float | None:
    """What the tempo network says of a sound, (samples,) at 22 050 Hz."""
    tempo = Tempo()
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


def rows_of(folder: Path, composed: bool) -> dict[str, list[dict[str, dict[str, float | bool]]]]:
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
        found["network"] = judged(melody.beats(MUSIC_LATE, region_of(melody_sound)), true, melody.seconds)
        found["raw"] = judged(melody.beats(0.0), exact or rhythm.beats(0.0) or true, melody.seconds)
        if exact:
            found["drums"] = judged(rhythm.beats(0.0), exact, rhythm.seconds)
        name = f"{folder.name}, {'test' if source.split == 'test' else 'train'}: {source.name.split()[0]}"
        rows.setdefault(name, []).append(found)
    return rows


def late_of(songs: list[dict[str, dict[str, float | bool]]], kind: str) -> list[float]:
    """Quartiles of the lateness, ms, the median in the middle."""
    found = [float(song[kind]["late"]) for song in songs if kind in song and np.isfinite(float(song[kind]["late"]))]
    return [float(value) for value in np.percentile(found, (25, 50, 75))] if found else [float("nan")] * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of songs, may be given again")
    parser.add_argument("--composed", type=Path, help="folder that launch/compose.py wrote")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: dict[str, list[dict[str, dict[str, float | bool]]]] = {}
    for folder in options.data:
        rows |= rows_of(folder, composed=False)
    if options.composed:
        rows |= rows_of(options.composed, composed=True)
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
    folders = [
        late_of([song for name, songs in training.items() if name.startswith(f"{folder.name},") for song in songs], "raw")[1]
        for folder in options.data
    ]
    if folders:
        constant = 1000 * (MUSIC_LATE - DRUMS_LATE)
        told = f"{np.nanmean(folders):.1f} ms in training songs, the mean of the folders' medians"
        print(f"Attacks of music are found later than those of its drums by {told}; the constant is {constant:.1f}.")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1, allow_nan=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

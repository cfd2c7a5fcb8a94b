"""Render composed songs with FluidSynth into a folder of songs in MUSDB18's layout, with their beats and drum strokes beside.

DIR/train/NAME/{drums,bass,other,vocals}.flac  the stems, 44.1 kHz, stereo
DIR/train/NAME/song.json                       tempo, beats, sections and every stroke with its class (`schemas.COMPOSED`)
DIR/train/NAME/song.mid                        the same as MIDI
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile

from p2p_dist.audio.sound_file import errors_of
from p2p_dist.common import files, records, schemas
from p2p_dist.data.composed.grooves import CLASSES
from p2p_dist.data.composed.score import Line, Score, compose
from p2p_dist.settings.config import STEMS

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
"""Debian's package fluid-soundfont-gm, which its author Frank Wen released under the MIT licence
(/usr/share/doc/fluid-soundfont-gm/copyright)."""

RATE = 44100
_TICKS = 960  # of a beat: half a millisecond at 120 beats a minute
_DRUM_CHANNEL = 9
_LEVELS = {"drums": 0.1, "bass": 0.08, "other": 0.07, "vocals": 0.06}
"""Root mean square of a stem where it plays, full scale 1."""
_PEAK = 0.95  # of the mix
_LONGEST = 120.0  # seconds to render a stem


def check(font: Path) -> str:
    """Return FluidSynth's path.

    Raises:
        ValueError: FluidSynth or the sound font is missing, or the font is damaged: FluidSynth would take its default font
            without an error.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise ValueError("composed songs are rendered by FluidSynth, which is not on PATH: apt-get install fluidsynth")
    if not font.is_file():
        raise ValueError(f"there is no sound font {font}: apt-get install fluid-soundfont-gm, or name another with --font")
    with font.open("rb") as file:
        kind, size, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if kind != b"RIFF" or form != b"sfbk":
        raise ValueError(f"{font} is not a SoundFont 2 or 3 file: specify another with --font")
    if size + 8 > font.stat().st_size:
        raise ValueError(
            f"{font} is truncated: its header states {size + 8} bytes, the file has {font.stat().st_size}; copy it again"
        )
    return program


def write_song(folder: Path, seed: int, number: int, seconds: float, font: Path) -> Score:
    """Compose song `number` of a seed and write its folder, whole or not at all; it is kept if it is there.

    Raises:
        ValueError: FluidSynth or the sound font is missing, or FluidSynth failed.
    """
    program = check(font)
    score = compose(seed, number, seconds)
    target = folder / f"composed {seed}-{number:04d} {score.style}"
    if target.is_dir():
        return score
    with files.new_folder(target) as place, tempfile.TemporaryDirectory() as scratch:
        midi_file(score, list(STEMS)).save(place / "song.mid")
        sounds = {stem: _rendered(program, font, score, stem, Path(scratch)) for stem in STEMS}
        length = round((score.beats * score.microseconds / 1e6 + 2) * RATE)
        scaled = _levelled({stem: _of_length(sound, length) for stem, sound in sounds.items()})
        for stem, sound in scaled.items():
            with errors_of(place / f"{stem}.flac", at_end=True):
                soundfile.write(place / f"{stem}.flac", sound, RATE, subtype="PCM_16")
        records.write(place / "song.json", schemas.COMPOSED, _record(score, seed, number, length / RATE, font))
    return score


def midi_file(score: Score, stems: list[str]) -> mido.MidiFile:
    """Return some stems of a song as MIDI, one track for an instrument."""
    midi = mido.MidiFile(type=1, ticks_per_beat=_TICKS)
    head = mido.MidiTrack()
    head.append(mido.MetaMessage("set_tempo", tempo=score.microseconds))
    head.append(mido.MetaMessage("time_signature", numerator=score.beats_per_bar, denominator=4))
    midi.tracks.append(head)
    pitched = 0
    for stem in STEMS:
        for line in score.lines[stem]:
            channel = _DRUM_CHANNEL if line.program is None else pitched
            pitched += line.program is not None
            if stem in stems:
                midi.tracks.append(_track(line, channel, stem))
    return midi


def _track(line: Line, channel: int, name: str) -> mido.MidiTrack:
    events = []
    for note in line.notes:
        begin, end = round(note.beat * _TICKS), round((note.beat + note.length) * _TICKS)
        on = mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
        off = mido.Message("note_off", channel=channel, note=note.pitch)
        events += [(begin, 1, on), (max(end, begin + 1), 0, off)]
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
    if line.program is not None:
        track.append(mido.Message("program_change", channel=channel, program=line.program))
    track.append(mido.Message("control_change", channel=channel, control=7, value=line.volume))
    at = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - at))
        at = tick
    return track


def _rendered(program: str, font: Path, score: Score, stem: str, scratch: Path) -> np.ndarray:
    """Return a stem as float32 (samples, 2)."""
    notes, sound = scratch / f"{stem}.mid", scratch / f"{stem}.wav"
    midi_file(score, [stem]).save(notes)
    command = [program, "-ni", "-q", "-r", str(RATE), "-O", "float", "-T", "wav", "-F", str(sound), str(font), str(notes)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LONGEST)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"FluidSynth did not end within {_LONGEST:.0f} s: {' '.join(command)}") from error
    if ended.returncode or not sound.is_file():
        reason = (ended.stderr or ended.stdout).strip().splitlines()
        raise ValueError(
            f"FluidSynth failed ({reason[-1] if reason else f'exit code {ended.returncode}'}): {' '.join(command)}"
        )
    found: np.ndarray = soundfile.read(sound, dtype="float32", always_2d=True)[0]
    return found


def _of_length(sound: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(sound[:samples], ((0, max(samples - len(sound), 0)), (0, 0)))


def _levelled(sounds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the stems at their usual levels, all turned down where their sum would clip."""
    scaled = {}
    for stem, sound in sounds.items():
        loud = (sound**2).mean(axis=1)
        playing = loud > 1e-4 * loud.max()
        scaled[stem] = sound * (_LEVELS[stem] / float(np.sqrt(loud[playing].mean()))) if playing.any() else sound
    peak = float(np.abs(sum(scaled.values(), np.zeros_like(sound))).max())
    peak = max(peak, *(float(np.abs(sound).max()) for sound in scaled.values()))
    return {stem: sound * min(_PEAK / max(peak, 1e-9), 1.0) for stem, sound in scaled.items()}


def _record(score: Score, seed: int, number: int, seconds: float, font: Path) -> dict[str, Any]:
    beat = score.microseconds / 1e6
    strokes = sorted((note for line in score.lines["drums"] for note in line.notes), key=lambda note: (note.beat, note.pitch))
    return {
        "seed": seed,
        "number": number,
        "style": score.style,
        "bpm": score.bpm,
        "beats_per_bar": score.beats_per_bar,
        "swing": score.swing,
        "seconds": seconds,
        "beats": [round(number * beat, 6) for number in range(score.beats)],
        "sections": [{"name": name, "begin": round(first * beat, 6)} for name, first in score.sections],
        "drums": [
            {"seconds": round(note.beat * beat, 6), "note": note.pitch, "velocity": note.velocity, "class": CLASSES[note.pitch]}
            for note in strokes
        ],
        "sound_font": {"name": font.name, "sha256": files.sha256_file(font)},
    }

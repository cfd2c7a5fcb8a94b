"""Generate the new stem of one song, block by block: decode, spectrogram, generator, phase, mix, write.

A model without a generator has neither spectrogram nor phase: its drummer plays the stem.

SONG-drums.flac    the new stem, with the rate, channels and length of the song
SONG-mix.flac      the song plus the stem
SONG-drums.mid     the hits of the stem, if it is drums
SONG.json          the record: settings, model, versions. It is written last, so a song that has it is done

The song is decoded again for each pass, so that only a few blocks are in memory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import decode, flac, sound_file
from p2p_dist.audio.beats import Beats, words
from p2p_dist.audio.beats import options as options_for
from p2p_dist.audio.decode import Decoded
from p2p_dist.audio.hits import CLOSED_HAT, OPEN_HAT, Bands, write_midi
from p2p_dist.audio.rhythm import SHORTEST, Rhythm
from p2p_dist.audio.spectrogram import frame_count
from p2p_dist.common import files, records, schemas
from p2p_dist.generate import phase, stem_and_mix, windows
from p2p_dist.generate.drummer import Performance
from p2p_dist.generate.model import Model
from p2p_dist.generate.request import TRACKS, Options, Song, plain, planned, recorded, requested, stem_name
from p2p_dist.generate.sketch import Sketch
from p2p_dist.model.generator import Generator
from p2p_dist.run import provenance
from p2p_dist.settings.config import parse_task

_PACKAGES = ("torch", "numpy", "scipy", "av", "soxr", "soundfile", "mido")
_HATS, _FEWEST_HATS = 60.0, 10  # a minute, and in all
_OUT_OF_PHASE = 10**-1.5  # power of the mean of left and right, relative to left alone


OnProgress = Callable[[float], None]
"""Callback with the seconds of stem made since its last call."""


def make(
    asked: Song,
    model: Model,
    generator: Generator | None,
    options: Options,
    page: Callable[[Song, dict[str, Any]], object],
    on_progress: OnProgress = lambda _: None,
) -> dict[str, Any]:
    """Make all files of one song; return the content of its record.

    Args:
        page: writes the listening page from the record. Passed in, because this package must not import evaluate.

    Raises:
        ValueError: the song can't be used. The message says why, in one sentence. No files are left behind.
    """
    source, place = asked.source, asked.place
    begun, times = time.perf_counter(), {"network": 0.0, "phase": 0.0}
    wanted = requested(source, model.sha256, options, model.drummer_sha256)
    tracks = place.folder / TRACKS
    for folder in (tracks.parent, tracks):  # the page would refuse them after all the work
        files.refuse_link(folder)
    song = _look(source, options)
    samples, reference = _measure(song, model)
    if not song.peak:
        raise ValueError(f"{source} is silent, so there is nothing to accompany")
    if options.first_beat is not None and options.first_beat > options.begin + song.samples / song.rate:
        raise ValueError(f"--first-beat {options.first_beat:g} is after the end of {source}")
    told = [*_notes(song, model), *song.notes]
    length, peak = song.samples, song.peak
    performance = _perform(song, model, place.name, reference, options)
    if performance is not None and generator is None:
        _check_can_play(performance, song, options)
    makes_drums = "drums" in parse_task(model.task)[1]
    made: list[dict[str, Any]] = []
    takes = planned(place, model.task, options)
    beats: Beats | None = None
    with ExitStack() as stack:
        for take, paths in enumerate(takes):
            seed = options.seed + take
            raw = stack.enter_context(_scratch(place.record.with_name(f"{place.name}-{take}.raw")))
            if generator is not None:
                blocks = _painted(song, samples, reference, model, generator, performance, seed, times)
            else:
                assert performance is not None, "a model with neither generator nor drummer"
                blocks = _played(performance.sketch(seed), samples)
            _keep(blocks, raw, lambda count: on_progress(count / model.data.sample_rate))
            if song.samples != length:
                raise ValueError(f"{source} was changed while it was being read: run the command again")
            temporary = {kind: stack.enter_context(files.replacing(path)) for kind, path in paths.items()}
            # What a drummer alone plays is known, and is not looked for in the stem.
            bands = Bands(peak) if generator is not None and "midi" in temporary else None
            of_stem = () if bands is None else (bands,)
            of_song: list[Bands | Rhythm] = []
            if take == 0:
                in_song, rhythm = Bands(peak), Rhythm(peak)
                of_song += [in_song] * makes_drums + [rhythm] * (performance is None)
            loudest = stem_and_mix.write(song, raw, model, options, temporary, 0.0, of_stem, of_song)
            if gain := flac.quieter(loudest):
                stem_and_mix.write(song, raw, model, options, temporary, gain)
            raw.unlink()
            if take == 0:
                beats = rhythm.beats() if performance is None else performance.heard.beats
                told += _notes_of_beats(beats, options) if performance is not None else []
                told += _holds_drums(in_song, length / song.rate) if makes_drums else []
                del in_song, rhythm
            if "midi" in temporary:
                if bands is not None:
                    hits = bands.hits()
                else:
                    assert performance is not None
                    hits = performance.hits(seed)
                write_midi(temporary["midi"], hits, beats, f"{place.name} {stem_name(model.task)}")
            # What is heard of a song grows with it: it is not kept for the next take and the page.
            del bands, of_stem, of_song
            sizes = {kind: {"name": plain(path.name), "bytes": temporary[kind].stat().st_size} for kind, path in paths.items()}
            made.append({"seed": seed, "gain_db": gain, "files": sizes})
        if any(one["gain_db"] for one in made):
            gains = ", ".join(f"{abs(one['gain_db']):g} dB" for one in made)
            told.append(f"stem and mix were both turned down by {gains}, because the mix would clip")
        content = {
            **_described(song, length, model, wanted),
            "tempo": None if beats is None else _tempo(beats, length / song.rate, half_beat=options.half_beat),
            "takes": made,
            "notes": [plain(note) for note in told],
            "seconds": {"song": length / song.rate, "all": time.perf_counter() - begun, **times},
            "versions": provenance.versions(("p2p_dist", *_PACKAGES)),
        }
        # From here on files are replaced. A record without takes means that the song is not done.
        for path in {*recorded(place)} - {path for paths in takes for path in paths.values()}:
            path.unlink(missing_ok=True)  # of an earlier request, with other takes or another format
        records.write(place.record, schemas.GENERATED, {**content, "takes": []})
    page(asked, content)
    on_progress(0.0)  # a request to stop, which may have left a gap in the page: the song is made again
    records.write(place.record, schemas.GENERATED, content)
    return content


def _look(source: Path, options: Options) -> Decoded:
    """Read the header of a song, and choose the part of it that was asked for.

    Raises:
        ValueError: it is no sound file, or the format to write can't hold its rate or channels.
    """
    song = decode.look(source)
    song.begin = round(options.begin * song.rate)
    song.end = None if options.end is None else round(options.end * song.rate)
    try:
        sound_file.check(options.format, song.rate, len(song.channels))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return song


def _perform(song: Decoded, model: Model, name: str, reference: float, options: Options) -> Performance | None:
    """Let the model's drummer hear the song and choose strokes; None if the model has none."""
    if model.drummer is None:
        return None
    rate = model.data.sample_rate

    def heard() -> Iterator[np.ndarray]:
        return (block[:, 0] for block in song.heard(rate, 1))

    return model.drummer.play(heard, rate, song.peak, name, reference, options)


def _keep(blocks: Iterator[np.ndarray], raw: Path, on_samples: Callable[[int], None]) -> None:
    """Write the blocks of a stem, as float32, to a temporary file. on_samples: called with the length of each."""
    try:
        with raw.open("wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block).tobytes())
                on_samples(len(block))
    except OSError as error:
        files.add_name(error, raw.parent)
        raise


def _notes_of_beats(beats: Beats | None, options: Options) -> list[str]:
    """Describe the beats that a drummer played to."""
    if beats is None:
        return ["no beats were heard: name a tempo with --bpm"]
    return [f"played to {words(beats, options.begin, half_beat=options.half_beat)}"]


def _described(song: Decoded, length: int, model: Model, wanted: dict[str, Any]) -> dict[str, Any]:
    """Describe song, model and settings for the record. length: of the song in samples."""
    return {
        "song": {
            "file": plain(str(song.path)),
            "stamp": wanted["stamp"],
            "sample_rate": song.rate,
            "channels": list(song.channels),
            "samples": length,
            "begin_sample": song.begin,
        },
        "model": {
            "name": model.name,
            "task": model.task,
            "step": model.step,
            "sha256": model.sha256,
            **({} if wanted["drummer"] is None else {"drummer": wanted["drummer"]}),
        },
        "settings": wanted["settings"],
    }


def _painted(
    song: Decoded,
    samples: int,
    reference: float,
    model: Model,
    generator: Generator,
    performance: Performance | None,
    seed: int,
    times: dict[str, float],
) -> Iterator[np.ndarray]:
    """Yield the stem that the generator makes, at the model's rate, in blocks float32 (samples, channels)."""
    data, device = model.data, next(generator.parameters()).device
    guide = None if performance is None else performance.guide(seed)
    found = windows.windows(song.heard(data.sample_rate, data.picture_channels), samples, reference, data)
    frames = frame_count(samples, data.hop_length)
    power = windows.stem_power(generator, found, frames, data, model.model, seed, times, guide)
    return phase.sound(power, samples, data, device, times)


def _played(sketch: Sketch, samples: int) -> Iterator[np.ndarray]:
    """Yield the stem that the drummer plays, in blocks float32 (samples, 1)."""
    for begin in range(0, samples, stem_and_mix.BLOCK):
        yield sketch.part(begin, min(begin + stem_and_mix.BLOCK, samples))[:, None]


def _check_can_play(performance: Performance, song: Decoded, options: Options) -> None:
    """Check that there is something to play, for a model whose drummer alone makes the stem.

    Raises:
        ValueError: no beats were heard, or no strokes chosen. The message says what to do.
    """
    seconds = song.samples / song.rate
    if performance.heard.beats is None:
        why = f"{seconds:.1f} s are too short to hear a tempo" if seconds < SHORTEST else "no beats were heard"
        raise ValueError(f"{song.path}: {why}: name one with --bpm, and a beat with --first-beat")
    if not performance.onsets:
        more = "name the tempo with --bpm, or another beat with --half-beat" if options.bpm is None else "name another tempo"
        raise ValueError(f"{song.path}: the drummer found nothing to play: {more}")


def _tempo(beats: Beats, seconds: float, *, half_beat: bool) -> dict[str, Any]:
    """Describe beats for the record, and what else they may be, each with the option that asks for it.

    Where the tempo drifts, its range and the times of all beats are added. Times are in the files that were made, which begin
    with the part of the song that was used.
    """
    others = [
        {"option": option, "bpm": round(other.bpm, 3), "first_beat": round(other.first, 4)}
        for option, other in zip(options_for(beats, half_beat=half_beat), beats.others, strict=True)
    ]
    told: dict[str, Any] = {"bpm": round(beats.bpm, 3), "first_beat": round(beats.first, 4), "others": others}
    if beats.at:
        told["range"] = [round(tempo, 3) for tempo in beats.tempos()]
        told["beats"] = [round(time, 4) for time in beats.times(seconds).tolist()]
    return told


def _measure(song: Decoded, model: Model) -> tuple[int, float]:
    """Decode a song once. Return its length in samples at the model's rate, and the power that is 0 dB in its spectrograms.

    Without a generator there are none, and this power is 1.
    """
    data, loudness, count = model.data, windows.Loudness(), 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for block in song.heard(data.sample_rate, 1):
            count += len(block)
            yield block

    if model.weights is None:
        for _ in counted():
            pass
    else:
        for power in windows.mels(counted(), data):
            loudness.add(power)
    if not count:
        raise ValueError(f"{song.path} has no audio in the requested part: change --from or --to")
    return count, 1.0 if model.weights is None else loudness.reference()


def _notes(song: Decoded, model: Model) -> list[str]:
    """Return notes about properties of a song that are unusual for the model."""
    data, found = model.data, []
    if len(song.channels) > 2:
        left, right = (song.channels[place] for place in song.front)
        named = ", ".join(song.channels)
        which = f"{left}, {right}" if left == "FL" else "the first two, because the file does not name its channels"
        found.append(
            f"{len(song.channels)} channels ({named}): the model hears all of them, the new stem is in front left and "
            f"right ({which})"
        )
    left_alone, mean = song.powers
    if mean < _OUT_OF_PHASE * left_alone:
        found.append(
            "left and right are out of phase and almost cancel out in their mean, which is what the model hears: the new stem "
            "may be too quiet or at the wrong times; invert one channel of the song first"
        )
    if song.rate < data.sample_rate:
        found.append(f"a song of {song.rate} Hz contains nothing above {song.rate // 2} Hz, so neither does the new stem")
    window = data.frames * data.hop_length / data.sample_rate
    if model.weights is not None and song.samples / song.rate < window:
        found.append(f"shorter than the {window:.1f} s that the model hears at once: the rest is padded with silence")
    return found


def _holds_drums(song: Bands, seconds: float) -> list[str]:
    """Return a note if a song seems to contain drums already, judged by its hi-hats.

    It was tested on ten songs with drums, of which it detects six, and eleven without, of which it wrongly detects one.
    """
    hats = sum(hit.note in (CLOSED_HAT, OPEN_HAT) for hit in song.hits())
    rate = hats / seconds * 60
    if hats < _FEWEST_HATS or rate < _HATS:
        return []
    return [
        f"the song seems to contain drums already ({rate:.0f} hats a minute); this model was trained on songs without drums"
    ]


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Create a temporary file beside `path`; it is removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = files.temporary_beside(path)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)

"""Write a page to listen to one song and its generated stems. The page of a run (page.py) shares some of this code.

index.html    the page without audio and images; it can be opened from disk and needs no network
media/        the audio, see tracks.py: index.html and media/ can be zipped and sent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from p2p_dist.common import files, svg
from p2p_dist.evaluate.report import loudness, tracks
from p2p_dist.evaluate.report.tracks import FLAC, OPUS, Sound, Track, of_file

__all__ = ["Sound", "of_file", "write_listening_page"]

MEDIA = "media"
INPUT, TARGET, CEILING = "input", "target", "ceiling"


def write_listening_page(
    folder: Path,
    title: str,
    input: Sound,
    stems: Sequence[Sound],
    *,
    made: str,
    facts: Sequence[tuple[str, str]] = (),
    downloads: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write `folder`/index.html and `folder`/media for one song, replacing an earlier page.

    The mix is not needed: the page plays the input and a stem together. Input and first stem are written as FLAC of 16 bits,
    further stems as Opus. Needs the same memory however long the song is: sounds are read block by block, several times.

        write_listening_page(
            folder, "My song", of_file(decoded, "song", "as you gave it"),
            [of_file(folder / "SONG-drums.flac", "take 1", "seed 0")], made="drums", downloads=[("Drums", "SONG-drums.flac")])

    Args:
        input: the input, at its level in the mix. stems: the generated stems, best first, with the rate, length and channels
            of the input; the page shows their labels, such as "take 1". made: what the stems are, such as "drums".
        facts: name and value of each line of a table, such as model, seed, tempo. They are escaped.
        downloads: label and name of files in `folder` to offer for download: stem, mix, MIDI.

    Returns:
        index.html.

    Raises:
        ValueError: a stem has another rate or length than the input, or there is none.
    """
    if not stems:
        raise ValueError("a listening page needs a stem")
    for stem in stems:
        if (stem.rate, stem.samples) != (input.rate, input.samples):
            raise ValueError(
                f"{stem.label} has {stem.samples} samples at {stem.rate} Hz, the song {input.samples} at {input.rate} Hz"
            )
    files.refuse_link(folder / MEDIA)
    songs = folder / MEDIA / "song"
    files.refuse_link(songs)
    files.remove_tree(songs)
    written = {INPUT: tracks.write(songs / INPUT, input, FLAC)}
    for number, stem in enumerate(stems, 1):
        form = FLAC if number == 1 else OPUS
        written[f"take-{number}"] = tracks.write(songs / f"take-{number}", stem, form, beside=input)
    one = ListeningSong("song", title, written)
    takes = [Choice(f"take-{number}", stem.label, stem.meaning) for number, stem in enumerate(stems, 1)]
    page = template("song.html").render(
        title=title,
        made=made,
        listening=content([one], takes, 0, made=made, chooser="Take", input=(input.label, "the song", input.meaning)),
        facts=list(facts),
        downloads=list(downloads),
        formats=sorted({track.format for track in written.values()}),
    )
    path = folder / "index.html"
    files.write_text(path, page)
    return path


@dataclass(frozen=True)
class ListeningSong:
    """One song of a page. key: name of its folder in media/. name: its title. tracks: by the names of their folders."""

    key: str
    name: str
    tracks: dict[str, Track]


@dataclass(frozen=True)
class Choice:
    """A stem that can be selected: that of a checkpoint, or a take."""

    track: str
    label: str
    meaning: str


def content(
    songs: list[ListeningSong], choices: list[Choice], chosen: int, *, made: str, chooser: str, input: tuple[str, str, str]
) -> dict[str, Any]:
    """The values that the page's script needs.

    Args:
        chosen: index of the initial choice. made: what the stems are, such as "drums". chooser: what a choice is called.
        input: its label, its name within a sentence ("the song"), and its meaning.
    """
    return {
        "made": made,
        "chooser": chooser,
        "input": dict(zip(("label", "name", "meaning"), input, strict=True)),
        "segment": tracks.SEGMENT,
        "margin": tracks.MARGIN,
        "chosen": chosen,
        "choices": [{"track": one.track, "label": one.label, "meaning": one.meaning} for one in choices],
        "songs": [_song(song) for song in songs],
    }


def _song(song: ListeningSong) -> dict[str, Any]:
    levels = [level for track in song.tracks.values() for level in (track.alone, track.mixed) if level is not None]
    wanted = loudness.common(levels)
    return {
        "key": song.key,
        "name": song.name,
        "seconds": max(track.seconds for track in song.tracks.values()),
        "rate": song.tracks[INPUT].rate,
        "lufs": round(wanted, 1),
        "tracks": {name: _track(track, wanted) for name, track in song.tracks.items()},
    }


def _track(track: Track, wanted: float) -> dict[str, Any]:
    return {
        "seconds": track.seconds,
        "segments": track.segments,
        "format": track.format,
        "alone": loudness.gain(track.alone, wanted),
        "mixed": None if track.mixed is None else loudness.gain(track.mixed, wanted),
    }


def template(name: str) -> jinja2.Template:
    """Load a template of this package; inserted values are escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["thousands"] = svg.thousands
    return environment.get_template(name)

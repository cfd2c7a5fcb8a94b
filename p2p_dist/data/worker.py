"""Preprocess one song to its shards, in a worker process. It imports neither torch nor librosa and may be killed at any time.

The way of a song: decode (song_sums), make pairs (song_pairs), write them (shard_file), note that it is done (song_record). A
song has files of its own until it is packed, so the bytes do not depend on who made them; a file has its name only when it is
whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2p_dist.data import reuse, shard_file, song_pairs, song_record, song_sums
from p2p_dist.data.song_record import KeyedSong, SongFacts
from p2p_dist.data.song_sums import Wanted
from p2p_dist.settings.config import Data


@dataclass(frozen=True)
class Result:
    """The result of preprocessing one song: its duration and size, or the reasons why it was left out."""

    name: str
    seconds: float = 0.0
    bytes: int = 0
    errors: dict[Path, str] = field(default_factory=dict)
    """folder -> why the song was left out there"""
    note: str = ""
    """speed and title, for progress messages"""

    @property
    def error(self) -> str | None:
        """All reasons why it was left out."""
        return "; ".join(dict.fromkeys(self.errors.values())) or None


def make_song(song: KeyedSong, wanted: Sequence[Wanted]) -> Result:
    """Decode one song and write its samples and its record into each folder, under that folder's settings.

    Where another dataset beside a folder has the song, it is copied from there.
    """
    source, seconds, errors = song.source, 0.0, {}
    for out, _ in wanted:
        song.forget(out)
    to_make = [one for one in wanted if not reuse.reuse(song, *one)]
    groups = song_sums.group_by_memory(source, to_make) if to_make else []
    while groups:
        group = groups.pop(0)
        try:
            if source.pairs:
                _put_npz_pairs(song, *group[0])
            else:
                seconds = _put_sound(song, group)
        except ValueError as error:
            if len(group) > 1:  # the error may be in a stem that only one of the tasks needs
                groups += [[one] for one in group]
            else:
                errors[group[0][0]] = str(error)
    return Result(source.name, seconds, source.size(), errors)


def _put_sound(song: KeyedSong, group: Sequence[Wanted]) -> float:
    """Decode the song once and write its samples for these tasks; return its duration in seconds."""
    seconds = 0.0
    for out, data, rate, sides in song_sums.decode(song.source, group):
        facts = song_record.facts_of(rate, *sides)
        sound_piece = None
        if song.source.split != "train":  # before the spectrograms, because it replaces the audio by the encoded audio
            note = {"song": song.source.name, "split": song.source.split, "task": data.task}
            sound_piece, _ = shard_file.write(song.sound_file(out), shard_file.sound(song.key, rate, sides, note))
        samples, counts = song_pairs.from_sound(song, sides, rate, data)
        pairs_piece, rows = shard_file.write_pairs(song.pairs_file(out), samples)
        song_record.write_record(song, out, data, facts, counts, pairs_piece, rows, sound_piece)
        seconds = facts.seconds
    return seconds


def _put_npz_pairs(song: KeyedSong, out: Path, data: Data) -> None:
    """Copy existing pairs, unchanged."""
    samples, counts = song_pairs.from_npz(song, data)
    pairs_piece, rows = shard_file.write_pairs(song.pairs_file(out), samples)
    seconds = len(song.source.pairs) * data.hop_length * (data.frames - 1) / data.sample_rate
    facts = SongFacts(data.sample_rate, seconds, 0, {"input": None, "target": None})
    song_record.write_record(song, out, data, facts, counts, pairs_piece, rows, None)

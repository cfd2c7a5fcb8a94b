"""Preprocess one song to its shards, in a worker process. It imports neither torch nor librosa and may be killed at any time.

The way of a song: decode (song_sums), make pairs (song_pairs), write shards (shard_file), note that it is done (song_record).
A song is one shard, so the bytes do not depend on who made them; a shard has its name only when it is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2p_dist.data import shard_file, song_pairs, song_record, song_sums
from p2p_dist.data.song_record import NumberedSong, SongFacts
from p2p_dist.data.song_sums import Wanted
from p2p_dist.settings.config import Data


@dataclass(frozen=True)
class Result:
    """The result of preprocessing one song: its amount of data, or the reasons why it was left out."""

    name: str
    seconds: float = 0.0
    bytes: int = 0
    errors: dict[Path, str] = field(default_factory=dict)
    """by the folder from which it is left out"""
    note: str = ""
    """the speed, for messages"""

    @property
    def error(self) -> str | None:
        """Why it was left out, of any folder."""
        return "; ".join(dict.fromkeys(self.errors.values())) or None


def make_song(song: NumberedSong, wanted: Sequence[Wanted]) -> Result:
    """Decode one song and write its shards and its record into each folder, under that folder's settings."""
    source, seconds, errors = song.source, 0.0, {}
    for out, _ in wanted:
        song.forget(out)
    groups = song_sums.group_by_memory(source, wanted)
    while groups:
        group = groups.pop(0)
        try:
            if source.pairs:
                _put_npz_pairs(song, *group[0])
            else:
                seconds = _put_sound(song, group)
        except ValueError as error:
            if len(group) > 1:  # a stem that one of them needs may not matter to the others
                groups += [[one] for one in group]
            else:
                errors[group[0][0]] = str(error)
    return Result(source.name, seconds, source.size(), errors)


def _put_sound(song: NumberedSong, group: Sequence[Wanted]) -> float:
    """Write the shards of these tasks from one decode; return the song's seconds."""
    seconds = 0.0
    for out, data, rate, sides in song_sums.decode(song.source, group):
        facts = song_record.facts_of(rate, *sides)
        sound_shard = None
        if song.source.split != "train":  # before its pictures: the sound becomes what the file holds
            note = {"song": song.source.name, "split": song.source.split, "task": data.task}
            sound_shard, _ = shard_file.write(song.sound_shard(out), shard_file.sound(song.key, rate, sides, note))
        samples, counts = song_pairs.from_sound(song, sides, rate, data)
        pairs_shard, rows = shard_file.write_pairs(song.pairs_shard(out), samples)
        song_record.write_record(song, out, data, facts, counts, pairs_shard, rows, sound_shard)
        seconds = facts.seconds
    return seconds


def _put_npz_pairs(song: NumberedSong, out: Path, data: Data) -> None:
    """Copy ready-made pairs into a shard, unchanged."""
    samples, counts = song_pairs.from_npz(song, data)
    pairs_shard, rows = shard_file.write_pairs(song.pairs_shard(out), samples)
    seconds = len(song.source.pairs) * data.hop_length * (data.frames - 1) / data.sample_rate
    facts = SongFacts(data.sample_rate, seconds, 0, {"input": None, "target": None})
    song_record.write_record(song, out, data, facts, counts, pairs_shard, rows, None)

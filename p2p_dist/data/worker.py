"""Preprocess one song to its shards, in a worker process. It imports neither torch nor librosa and may be killed at any time.

The steps: decode (song_sums), make pairs (song_pairs), write the shards (shard_file), write the record (song_record). Each song
has its own shard, so its bytes do not depend on the number of workers; a shard gets its name when it is complete.
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


def make_song(song: NumberedSong, wanted: Sequence[Wanted]) -> Result:
    """Decode one song and write its shards and its record into each folder, with that folder's settings."""
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
            if len(group) > 1:  # the error may be in a stem that only one of the tasks needs
                groups += [[one] for one in group]
            else:
                errors[group[0][0]] = str(error)
    return Result(source.name, seconds, source.size(), errors)


def _put_sound(song: NumberedSong, group: Sequence[Wanted]) -> float:
    """Decode the song once and write its shards for these tasks; return its duration in seconds."""
    seconds = 0.0
    for out, data, rate, sides in song_sums.decode(song.source, group):
        facts = song_record.facts_of(rate, *sides)
        sound_shard = None
        if song.source.split != "train":  # before the spectrograms, because it replaces the audio by the encoded audio
            note = {"song": song.source.name, "split": song.source.split, "task": data.task}
            sound_shard, _ = shard_file.write(song.sound_shard(out), shard_file.sound(song.key, rate, sides, note))
        samples, counts = song_pairs.from_sound(song, sides, rate, data)
        pairs_shard, rows = shard_file.write_pairs(song.pairs_shard(out), samples)
        song_record.write_record(song, out, data, facts, counts, pairs_shard, rows, sound_shard)
        seconds = facts.seconds
    return seconds


def _put_npz_pairs(song: NumberedSong, out: Path, data: Data) -> None:
    """Copy existing pairs into a shard, unchanged."""
    samples, counts = song_pairs.from_npz(song, data)
    pairs_shard, rows = shard_file.write_pairs(song.pairs_shard(out), samples)
    seconds = len(song.source.pairs) * data.hop_length * (data.frames - 1) / data.sample_rate
    facts = SongFacts(data.sample_rate, seconds, 0, {"input": None, "target": None})
    song_record.write_record(song, out, data, facts, counts, pairs_shard, rows, None)

"""One song, made into shards."""

from __future__ import annotations

from pathlib import Path

from p2p_dist.audio.layouts import source_at
from p2p_dist.data import shards, song_record, worker
from p2p_dist.settings.config import Data


def one_song(out: Path, folder: Path, data: Data, split: str = "train") -> song_record.KeyedSong:
    item = song_record.KeyedSong(source_at(folder, split))
    result = worker.make_song(item, [(out, data)])
    assert result.error is None
    shards.merge(out, data, [item], [])
    return item

"""The songs of tests/data: the command makes shards of the same."""

from tests.data.conftest import dataset, new_song, small, songs

__all__ = ["dataset", "new_song", "small", "songs"]

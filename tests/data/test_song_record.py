"""Keys and records of songs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_dist.cli import preprocess
from p2p_dist.common import files, records
from p2p_dist.data import manifest as manifests
from p2p_dist.data import shards, song_record
from p2p_dist.data.index import Index
from p2p_dist.settings.config import Data
from tests.data.conftest import fingerprint
from tests.data.preprocess_command import TINY, many, undisturbed

__all__ = ["many", "undisturbed"]


@given(st.text())
def test_a_slug_is_a_key_that_webdataset_does_not_cut(title: str) -> None:
    slug = song_record.slug(title)
    assert slug and len(slug) <= 48 and slug.isascii() and set("./ &'\"\n\0").isdisjoint(slug)


def test_nasty_titles_stay_apart_and_keep_their_names(new_song: Callable[..., Path], small: Data, tmp_path: Path) -> None:
    """Row 25: titles with dots, slashes, quotes and letters beyond ASCII.

    Seen: songs that are lost or merged, keys that are cut at the first dot.
    Now: keys are slugs of their own, the true name stays beside them.
    """
    titles = ["M.E.R.C. Music - Knockout", "M", "Ünï & 'cöde' \"x\"", "日本", "a.b", "a b", "A-B", "-rf", "x" * 200]
    for number, title in enumerate(titles):
        new_song(tmp_path / "songs" / "test" / title, seconds=0.3, seed=number)
    work = shards.keyed_songs(tmp_path / "songs", False)
    assert len({item.key for item in work}) == len(titles)
    out = tmp_path / "out"
    for item in work:
        assert shards.make_song(item, [(out, small)]).error is None
    shards.merge(out, small, work, [])
    part = manifests.read(out)["splits"]["test"]
    assert sorted(song["name"] for song in part["songs"]) == sorted(titles)
    found = Index(out, "test")
    assert len({found.sample(number).key for number in range(len(found))}) == len(found) == manifests.windows(part)


@pytest.mark.parametrize("harm", ["{}", "[", '{"song": "Song 1", "shard": null, "audio": null}', "drums", "bass"])
def test_a_record_that_is_not_its_own_is_not_believed(many: Path, undisturbed: Path, tmp_path: Path, harm: str) -> None:
    """Damaged, edited, or of other settings: the song is rebuilt, with the same bytes."""
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    record = next((out / "parts").glob("train-song-2-*.json"))
    content = records.read(record)
    if harm == "drums":
        content["samples"]["input"][0] += 1
        harm = json.dumps(content)
    elif harm == "bass":
        content["settings"] = "0" * 12
        harm = json.dumps(files.sealed(content))
    record.write_text(harm)
    assert preprocess.main([*TINY, "--data", str(many), "--out", str(out), "--workers", "1"]) == 0
    assert fingerprint(out) == fingerprint(undisturbed)

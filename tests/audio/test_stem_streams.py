"""The streams of a stem file are taken by their titles, else in MUSDB18's order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_dist.audio import musdb18, stem_streams, stems
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.song_files import clicks, source, write_stem_file

NAMES = ("Vocals", "mixture", "Bass", "Drums", "other")
"""Of five streams, in another order than MUSDB18's."""


def stems_by_click(path: Path) -> list[int]:
    """Which stream each stem was taken from."""
    song = decode.load(source(path))
    return [round((int(np.abs(song.stems[name][:, 0]).argmax()) - 5000) / 1000) for name in STEMS]


def test_streams_are_taken_by_the_names_in_the_file(tmp_path: Path) -> None:
    path = write_stem_file(tmp_path / "a.stem.mp4", clicks(), tags=[{"handler_name": name} for name in NAMES])
    assert stems_by_click(path) == [3, 2, 4, 0]
    _, (drums,) = stems.load_sums(source(path), [("drums",)])
    assert not drums.by_position
    unnamed = write_stem_file(tmp_path / "b.stem.mp4", clicks(), tags=[{"handler_name": "SoundHandler"}] * 5)
    assert stems_by_click(unnamed) == [1, 2, 3, 4]
    _, (drums,) = stems.load_sums(source(unnamed), [("drums",)])
    assert drums.by_position


@pytest.mark.parametrize("tag", ["title", "name", "handler_name"])
def test_any_tag_may_name_a_stream(tag: str) -> None:
    tags = [{tag: name, "language": "und"} for name in NAMES]
    places, by_position = stem_streams.find(Path("nowhere.stem.mp4"), tags)
    assert (list(places), list(places.values()), by_position) == (list(STEMS), [3, 2, 4, 0], False)


def test_four_named_streams_need_no_mixture(tmp_path: Path) -> None:
    names = ["04 - Vox", "03 Others", "Bass", "DRUM"]
    path = write_stem_file(tmp_path / "a.stem.mp4", clicks()[:4], tags=[{"handler_name": name} for name in names])
    assert stems_by_click(path) == [3, 2, 1, 0]


@pytest.mark.parametrize("names", [("", "Bass", "Drums", "", ""), ("", "Drums", "Drums", "Other", "Vocals")])
def test_titles_that_contradict_the_order_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write_stem_file(tmp_path / "a.stem.mp4", clicks(), tags=[{"handler_name": name} for name in names])
    with pytest.raises(ValueError, match=r"a\.stem\.mp4: its streams are titled .*drums"):
        decode.load(source(path))


def test_the_list_of_native_instruments_names_the_streams(tmp_path: Path) -> None:
    """MUSDB18's own files have one, in its own order."""
    _, (drums,) = stems.load_sums(source(musdb18.excerpt_file()), [("drums",)])
    assert not drums.by_position
    content = musdb18.excerpt_file().read_bytes()
    swapped = content.replace(b'"name": "Drums"', b'"name": "Xxxxx"').replace(b'"name": "Bass"', b'"name":"Drums"')
    swapped = swapped.replace(b'"name": "Xxxxx"', b'"name": "Bass" ')
    assert len(swapped) == len(content) and swapped != content
    (tmp_path / "a.stem.mp4").write_bytes(swapped)
    there, here = decode.load(source(musdb18.excerpt_file())), decode.load(source(tmp_path / "a.stem.mp4"))
    assert np.array_equal(here.stems["drums"], there.stems["bass"])
    assert np.array_equal(here.stems["bass"], there.stems["drums"])


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_a_damaged_list_of_names_is_none(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.stem.mp4"
        boxes = content
        for kind in (b"stem", b"udta", b"moov"):
            boxes = (len(boxes) + 8).to_bytes(4, "big") + kind + boxes
        for whole in (boxes, content, boxes[:-1]):
            path.write_bytes(whole)
            assert stem_streams.find(path, [{}] * 5)[1]

"""What is known of MUSDB18 without its songs: the lists of the package musdb, and the excerpt inside stempeg."""

from pathlib import Path

import pytest

from p2p_dist.audio import musdb18
from p2p_dist.settings.config import STEMS


def test_the_excerpt_is_a_song_of_musdb18() -> None:
    path = musdb18.excerpt_file()
    title = path.name.removesuffix(musdb18.SUFFIX)
    assert path.is_file() and musdb18.known_of_musdb18(["My song", title, "ANiMAL - Rockshow"]) == ["ANiMAL - Rockshow", title]


def test_the_stems_and_validation_songs_are_those_of_musdb() -> None:
    settings = musdb18.musdb_settings()
    assert set(settings["stem_ids"]) == {"mixture", *STEMS} and len(set(settings["validation_tracks"])) == 14


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(musdb18, "_installed", lambda _: None)
    musdb18.musdb_settings.cache_clear()
    with pytest.raises(ValueError, match="package musdb is not installed: pip install"):
        musdb18.musdb_settings()
    with pytest.raises(ValueError, match="package stempeg, which is not installed: name a folder of songs with --data"):
        musdb18.excerpt_file()
    assert musdb18.known_of_musdb18(["ANiMAL - Rockshow"]) == [], "nothing is known of it"
    monkeypatch.setattr(musdb18, "_installed", lambda _: tmp_path)
    with pytest.raises(ValueError, match="package stempeg"):  # it came without its data
        musdb18.excerpt_file()

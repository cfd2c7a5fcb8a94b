"""Choose the titles of songs that are held out of training: for validation, and for tests in a folder without splits."""

from __future__ import annotations

import hashlib

from p2p_dist.audio import musdb18

VALID_SHARE = 0.14
"""Share of the training titles held out for validation where the songs are not MUSDB18 (which has 14 of 100)."""

TEST_SHARE = 0.2
"""Share of the titles that are for tests in a folder without splits."""


def testing_titles(titles: list[str]) -> set[str]:
    """Choose the test songs of a folder without splits, by hash of the title: at least one, if there are several, never all.

    The hash of a title does not depend on other songs, so adding songs moves none, unless the hash chose none, or all.
    """
    places = {title: hashlib.sha256(f"test\0{title}".encode()).digest()[0] for title in titles}
    order = sorted(places, key=lambda title: (places[title], title))
    count = sum(place < 256 * TEST_SHARE for place in places.values())
    return set(order[: min(max(count, 1), len(order) - 1)])


def validation_titles(titles: list[str]) -> set[str]:
    """Choose the training songs to hold out for validation: MUSDB18's 14 songs if all exist, else by hash of the title.

    The hash of a title does not depend on other songs, so adding songs moves none. If it would choose all, none is chosen.
    """
    known = set(musdb18.musdb_settings()["validation_tracks"])
    if known <= set(titles):
        return known
    return validation_by_hash(titles)


def validation_by_hash(titles: list[str]) -> set[str]:
    """`validation_titles` of songs that are not all of MUSDB18's; needs no package."""
    taken = {title for title in titles if hashlib.sha256(title.encode()).digest()[0] < 256 * VALID_SHARE}
    return taken if taken < set(titles) else set()

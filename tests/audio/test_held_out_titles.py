"""Which songs are held out: always the same, some and never all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p_dist.audio import held_out_titles, musdb18


@given(st.sets(st.text(min_size=1), max_size=30), st.sets(st.text(min_size=1), max_size=30))
def test_adding_songs_moves_none_between_train_and_valid(some: set[str], more: set[str]) -> None:
    before, after = held_out_titles.validation_titles(list(some)), held_out_titles.validation_titles(list(some | more))
    assert before == after & some or (not before and some <= after), "where all were held out, nothing would be learnt"


def test_about_a_seventh_is_held_out_for_validation() -> None:
    titles = [f"Title {number}" for number in range(2000)]
    assert 0.11 < len(held_out_titles.validation_titles(titles)) / len(titles) < 0.17


def test_musdb18_keeps_its_own_validation_songs() -> None:
    known = musdb18.musdb_settings()["validation_tracks"]
    assert len(known) == 14
    assert held_out_titles.validation_titles([*known, "Another"]) == set(known)
    own = [f"Title {number}" for number in range(100)]
    assert held_out_titles.validation_titles([known[0], *own]) >= held_out_titles.validation_titles(own) != set(), (
        "one of its songs is not all"
    )


def test_validation_never_takes_all_there_is_to_train_on() -> None:
    """Thesis pairs are often called train_0.npz: the hash would hold out the song "train"."""
    assert held_out_titles.validation_titles(["train", *map(str, range(50))]) >= {"train"}
    assert held_out_titles.validation_titles(["train"]) == set()


@given(st.sets(st.text(min_size=1), min_size=1, max_size=30))
def test_some_titles_and_never_all_are_for_tests(titles: set[str]) -> None:
    chosen = held_out_titles.testing_titles(list(titles))
    assert chosen < titles and (bool(chosen) or len(titles) == 1)


def test_about_a_fifth_of_the_titles_are_for_tests_whatever_is_held_out_for_validation() -> None:
    titles = [f"Title {number}" for number in range(2000)]
    chosen = held_out_titles.testing_titles(titles)
    assert 0.17 < len(chosen) / len(titles) < 0.23
    assert 0.1 < len(held_out_titles.validation_titles(titles) & chosen) / len(chosen) < 0.19, "by another hash"


def test_the_choice_is_that_of_earlier_versions() -> None:
    """Another one would move songs for tests of an existing run into its training."""
    titles = [f"Title {number}" for number in range(2000)]
    for choose, count, first in (
        (held_out_titles.validation_by_hash, 274, [11, 13, 20, 21, 25]),
        (held_out_titles.testing_titles, 403, [1, 5, 8, 9, 10]),
    ):
        chosen = sorted(int(title.removeprefix("Title ")) for title in choose(titles))
        assert (len(chosen), chosen[:5]) == (count, first)
    assert [len(held_out_titles.testing_titles(titles[:count])) for count in (1, 2, 3, 5, 6)] == [0, 1, 1, 1, 2]

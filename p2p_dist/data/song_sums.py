"""Decode a song to input and target, for as many tasks at once as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from p2p_dist.audio import stems
from p2p_dist.audio.layouts import Source
from p2p_dist.audio.mixer import Sum
from p2p_dist.settings.config import Data, parse_task

TOGETHER = 3e8
"""Largest size in bytes of the sums of stems decoded at once for several tasks; a longer song is decoded more than once."""

Wanted = tuple[Path, Data]
"""The folder of a dataset and its settings."""


def group_by_memory(source: Source, wanted: Sequence[Wanted]) -> list[list[Wanted]]:
    """Group the tasks whose sums fit into `TOGETHER`. Existing pairs are not decoded: each task is a group of its own."""
    if len(wanted) == 1 or source.pairs:
        return [[one] for one in wanted]
    _, channels, samples = stems.header(source)
    size = 4 * samples * (1 if _is_downmixed(source, wanted) else channels)
    groups: list[list[Wanted]] = [[]]
    for one in wanted:
        if groups[-1] and size * len(_sides([*groups[-1], one])) > TOGETHER:
            groups.append([])
        groups[-1].append(one)
    return groups


def decode(source: Source, group: Sequence[Wanted]) -> Iterator[tuple[Path, Data, int, list[Sum]]]:
    """Decode a song once; yield for each task its folder, its settings, the sample rate, and the list [input, target].

    The caller owns this list and should empty it as soon as possible, to free the memory.

    Raises:
        ValueError: see `stems.load_sums`.
    """
    rate, sums = stems.load_sums(source, _sides(group), downmix=_is_downmixed(source, group))
    of_side = dict(zip(_sides(group), sums, strict=True))
    del sums
    for number, (out, data) in enumerate(group):
        later = _sides(group[number + 1 :])
        # A copy, unless this task is the last to need it, because writing a held-out song changes its audio.
        yield out, data, rate, [_copy(of_side[s]) if s in later else of_side.pop(s) for s in parse_task(data.task)]


def _copy(total: Sum) -> Sum:
    return replace(total, sound=total.sound.copy())


def _sides(wanted: Sequence[Wanted]) -> list[tuple[str, ...]]:
    """Return the sums of stems that these tasks need, each once."""
    return list(dict.fromkeys(side for _, data in wanted for side in parse_task(data.task)))


def _is_downmixed(source: Source, wanted: Sequence[Wanted]) -> bool:
    """Whether only the mean of the channels is needed: no audio is stored and no side channel is used."""
    return source.split == "train" and all(data.channels == "mono" for _, data in wanted)

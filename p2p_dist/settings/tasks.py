"""Tasks: which stems are the input, and which are the target."""

from __future__ import annotations

STEMS = ("drums", "bass", "other", "vocals")
"""The stems of MUSDB18 in its order (its mixture stream, which comes first, is not used)."""

TASKS = {
    "drums": "vocals+bass+other->drums",
    "accompaniment": "vocals->drums+bass+other",
    "bass": "vocals+drums+other->bass",
    "vocals": "drums+bass+other->vocals",
}
"""Name of a task -> input stems -> target stems."""


def parse_task(task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a task into its input stems and its target stems, each in the order of `STEMS`.

    >>> parse_task("drums")
    (('bass', 'other', 'vocals'), ('drums',))

    Raises:
        ValueError: the task is neither a known name nor `a+b->c`; a side has no stem or an unknown one; or both have the same.
    """
    text = TASKS.get(task.strip(), task)
    if text.count("->") != 1:
        raise ValueError(f"task {task!r}: give one of {', '.join(TASKS)}, or stems as in 'vocals+other->drums+bass'")
    sides = [[stem.strip() for stem in side.split("+")] for side in text.split("->")]
    for side, where in zip(sides, ("before", "after"), strict=True):
        if side == [""]:
            raise ValueError(f"task {task!r}: no stem {where} '->'; the stems are {', '.join(STEMS)}")
    for stem in [*sides[0], *sides[1]]:
        if stem not in STEMS:
            raise ValueError(f"task {task!r}: unknown stem {stem!r}; the stems are {', '.join(STEMS)}")
    if both := set(sides[0]) & set(sides[1]):
        raise ValueError(f"task {task!r}: {', '.join(sorted(both))} cannot be both input and target")
    heard, made = (tuple(stem for stem in STEMS if stem in side) for side in sides)
    return heard, made

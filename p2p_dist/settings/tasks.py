"""Tasks: which stems are heard, and which are to be made."""

from __future__ import annotations

STEMS = ("drums", "bass", "other", "vocals")
"""The stems of MUSDB18, in its own order (the mixture stream before them is never used)."""

TASKS = {
    "drums": "vocals+bass+other->drums",
    "accompaniment": "vocals->drums+bass+other",
    "bass": "vocals+drums+other->bass",
    "vocals": "drums+bass+other->vocals",
}
"""Named tasks: what is heard -> what is to be made."""


def parse_task(task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a task into the stems heard and the stems to make, in the order of `STEMS`.

    >>> parse_task("drums")
    (('bass', 'other', 'vocals'), ('drums',))

    Raises:
        ValueError: not a known name and not `a+b->c`; no stem on a side, an unknown one, or one on both sides.
    """
    text = TASKS.get(task.strip(), task)
    if text.count("->") != 1:
        raise ValueError(f"task {task!r}: give one of {', '.join(TASKS)}, or stems as in 'vocals+other->drums+bass'")
    sides = [[stem.strip() for stem in side.split("+")] for side in text.split("->")]
    for side, place in zip(sides, ("heard before", "to be made after"), strict=True):
        if side == [""]:
            raise ValueError(f"task {task!r}: no stem {place} '->'; the stems are {', '.join(STEMS)}")
    for stem in [*sides[0], *sides[1]]:
        if stem not in STEMS:
            raise ValueError(f"task {task!r}: unknown stem {stem!r}; the stems are {', '.join(STEMS)}")
    if both := set(sides[0]) & set(sides[1]):
        raise ValueError(f"task {task!r}: {', '.join(sorted(both))} cannot be both input and target")
    heard, made = (tuple(stem for stem in STEMS if stem in side) for side in sides)
    return heard, made

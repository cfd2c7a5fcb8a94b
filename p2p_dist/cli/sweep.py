"""Take the option --sweep apart: one command line for each combination of values."""

from __future__ import annotations

import itertools


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the part without --sweep and the swept settings: `--sweep A B`, `--sweep=A`, twice.

    Raises:
        ValueError: a --sweep of nothing.
    """
    rest: list[str] = []
    swept: list[str] = []
    listing = False
    for text in arguments:
        if text == "--sweep" or text.startswith("--sweep="):
            listing = text == "--sweep"
            swept.append(text.removeprefix("--sweep").removeprefix("="))
        elif listing and not text.startswith("-"):
            swept.append(text)
        else:
            listing = False
            rest.append(text)
    found = [text for text in swept if text]
    if swept and not found:
        raise ValueError("--sweep is empty: give settings with their values, as in train.seed=0,1,2")
    return rest, found


def combinations(rest: list[str], swept: list[str], name: str) -> list[list[str]]:
    """Return the command lines of a sweep: one for each combination, with its values as flags and in the run's name.

    Args:
        rest: the command line without the sweep. name: of the run, without the values.

    Raises:
        ValueError: not `key=value,value`, or a key or one of its values twice.
    """
    keys, values = [], []
    for part in swept:
        key, equals, listed = part.partition("=")
        given = listed.split(",")
        if not equals or not all(given) or key in keys:
            raise ValueError(f"--sweep {part}: give each setting once, with its values, as in train.seed=0,1,2")
        if len(set(given)) < len(given):
            raise ValueError(f"--sweep {part}: a value is there twice, which would be the same run: give each once")
        keys.append(key)
        values.append(given)
    found = []
    for chosen in itertools.product(*values):
        words = [f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in zip(keys, chosen, strict=True)]
        flags = [text for key, value in zip(keys, chosen, strict=True) for text in (f"--{key}", value)]
        found.append([*rest, *flags, "--run", "-".join([name, *words])])
    return found

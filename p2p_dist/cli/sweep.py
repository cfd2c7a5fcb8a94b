"""Take the option --sweep apart: one command line for each combination of values."""

from __future__ import annotations

import itertools
import re


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
        ValueError: not `key=value,value`, or a key or one of its values twice, or two values that no name tells apart.
    """
    keys, values = [], []
    for part in swept:
        key, equals, listed = part.partition("=")
        given = listed.split(",")
        if not equals or not all(given) or key in keys:
            raise ValueError(f"--sweep {part}: give each setting once, with its values, as in train.seed=0,1,2")
        if len(set(given)) < len(given):
            raise ValueError(f"--sweep {part}: a value is there twice, which would be the same run: give each once")
        words = [_for_a_name(value) for value in given]
        if len(set(words)) < len(words):
            raise ValueError(f"--sweep {part}: two of the values give the same name of a run: start these runs one by one")
        keys.append(key)
        values.append(list(zip(given, words, strict=True)))
    found = []
    for chosen in itertools.product(*values):
        words = [f"{key.rsplit('.', 1)[-1]}-{word}" for key, (_, word) in zip(keys, chosen, strict=True)]
        flags = [text for key, (value, _) in zip(keys, chosen, strict=True) for text in (f"--{key}", value)]
        found.append([*rest, *flags, "--run", "-".join([name, *words])])
    return found


def _for_a_name(value: str) -> str:
    """Return a value as part of a run's name: of a path or a task (`vocals->drums`) only what such a name may have."""
    return value if re.fullmatch(r"[A-Za-z0-9._-]+", value) else re.sub(r"[^A-Za-z0-9._]+", "-", value).strip("-")

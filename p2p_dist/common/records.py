"""Read small JSON files that others may have written or damaged, and check each against an expected shape.

A shape is written where a file is read:

    str, bool, int, float    a value of this kind; float takes whole numbers too, and neither takes true and false
    COUNT                    a whole number, 0 or more
    None                     anything
    re.compile(...)          text that matches as a whole
    Maybe(shape)             that, or null
    [shape]                  a list of it
    (shape, shape)           a list of exactly these
    {"key": shape, ...}      these keys; one that ends in "?" may be absent; further keys are left alone
    Either(shape, shape)     one or the other
    {str: shape}             any keys
    {re.compile(...): shape} any keys that match as a whole
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p_dist.common import files
from p2p_dist.common.files import DamagedError

COUNT = range(1 << 53)
"""Shape of a whole number, 0 or more, that every JSON program reads as the same number."""

DEPTH = 32
"""Limit of nesting in files that are read, far above what the program writes."""

KEY = re.compile(r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?")
"""Shape of the key of a song or window, which names files."""

FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Shape of a plain name of a file or folder: never one outside the folder that it is looked for in."""

AGAIN = "remove it and run the command again"
"""Advice for most damaged files."""


@dataclass(frozen=True)
class Maybe:
    """A shape, or null."""

    shape: Any


@dataclass(frozen=True)
class Either:
    """One shape, or another."""

    one: Any
    other: Any


@dataclass(frozen=True)
class Kind:
    """A kind of record that other versions of this program may read or have written: see `schemas`.

    schema: the newest that this version knows, which it writes. shape: of what is read. implied: fields that older records
    lack, each with the value that the code of their time implied. before: the schema of records that name none.
    """

    schema: int
    shape: dict[str, Any]
    implied: dict[str, Any] = field(default_factory=dict)
    before: int = 0

    def complete(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return a record with the fields that an older version lacks, and its `schema`."""
        return {"schema": self.before, **self.implied, **content}


def read(path: Path, shape: Any = None, cure: str = AGAIN) -> Any:
    """Read the JSON file `path` and check its shape, or complete a record of a `Kind`.

    Args:
        cure: advice for the user if the file is damaged.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: not JSON, or not of this shape. ValueError: a newer version of this program wrote it.
    """
    return _checked(path, text_of(path, cure), shape, cure)


def parse(text: str | bytes, shape: Any = None, *, where: str, cure: str = AGAIN) -> Any:
    """Like `read`, from text, such as one line of a file.

    Raises:
        DamagedError: see `read`.
    """
    return _checked(where, text, shape, cure)


def write(path: Path, kind: Kind, content: dict[str, Any]) -> None:
    """Write a record of this kind in one atomic replacement."""
    files.write_json(path, {"schema": kind.schema, **content})


def wrong(value: Any, shape: Any) -> str | None:
    """Describe the first place at which `value` does not have this shape; None if it has.

    >>> wrong({"steps": [1, -2]}, {"steps": [COUNT]})
    'steps.1 is -2, not a whole number of 0 or more'
    """
    found = _wrong(value, shape)
    return None if found is None else f"{'.'.join(found[0]) or 'it'} {found[1]}"


def text_of(path: Path, cure: str = AGAIN) -> str:
    """Read a file as UTF-8 text.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: not a regular file, or not UTF-8 text.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block for ever
        raise DamagedError(f"{path} is not a regular file; {cure}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is damaged: it is not UTF-8 text; {cure}") from error


def _checked(where: Path | str, text: str | bytes, shape: Any, cure: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where} is damaged: it is not readable as JSON ({_said(error)}); {cure}") from error
    if _is_deep(value):
        raise DamagedError(f"{where} is damaged: it is nested more than {DEPTH} deep; {cure}")
    try:
        if "\\ud" in (text if isinstance(text, str) else text.decode()).lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DamagedError(f"{where} is damaged: it contains an unpaired surrogate (\\ud...); {cure}") from error
    except UnicodeDecodeError as error:  # JSON may be UTF-16; ours is not
        raise DamagedError(f"{where} is damaged: it is not UTF-8 text; {cure}") from error
    if isinstance(shape, Kind):
        return _checked_kind(where, value, shape, cure)
    if (found := wrong(value, shape)) is not None:
        raise DamagedError(f"{where} is damaged: {found}; {cure}")
    return value


def _checked_kind(where: Path | str, value: Any, kind: Kind, cure: str) -> dict[str, Any]:
    found = wrong(value, {"schema?": COUNT})
    if found is None and value.get("schema", kind.before) > kind.schema:
        raise ValueError(
            f"{where} has schema {value['schema']}, this version supports up to {kind.schema}: a newer version wrote "
            "it, use that version"
        )
    value = kind.complete(value) if found is None else value
    if (found := found or wrong(value, kind.shape)) is not None:
        raise DamagedError(f"{where} is damaged: {found}; {cure}")
    return value


def _said(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"{digits[:40]} is a number that is too large")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH):
        containers = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [child for values in containers for child in values if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _wrong(value: Any, shape: Any) -> tuple[list[str], str] | None:
    """Return where and what is wrong. Kept fast for valid input: a manifest has a row for each window."""
    if shape is None:
        return None
    if isinstance(shape, Maybe):
        return None if value is None else _wrong(value, shape.shape)
    if isinstance(shape, Either):
        return _wrong(value, shape.other) if _wrong(value, shape.one) is not None else None
    if isinstance(shape, dict):
        return _wrong_mapping(value, shape)
    if isinstance(shape, list | tuple):
        if not isinstance(value, list):
            return [], f"is {_shown(value)}, not a list"
        if isinstance(shape, tuple) and len(value) != len(shape):
            return [], f"has {len(value)} values, not {len(shape)}"
        shapes = shape if isinstance(shape, tuple) else shape * len(value)
        for number, (one, kind) in enumerate(zip(value, shapes, strict=True)):
            if (found := _wrong(one, kind)) is not None:
                return [str(number), *found[0]], found[1]
        return None
    return None if _is_kind(value, shape) else ([], f"is {_shown(value)}, not {_words(shape)}")


def _wrong_mapping(value: Any, shape: dict[Any, Any]) -> tuple[list[str], str] | None:
    if not isinstance(value, dict):
        return [], f"is {_shown(value)}, not names and values"
    for name, kind in shape.items():
        if name is str or isinstance(name, re.Pattern):
            inner = list(value.items())
            if (bad := next((key for key in value if not _is_kind(key, name)), None)) is not None:
                return [], f"has the name {_shown(bad)}, not {_words(name)}"
        elif name.removesuffix("?") in value:
            inner = [(name.removesuffix("?"), value[name.removesuffix("?")])]
        elif name.endswith("?"):
            continue
        else:
            return [], f"has no {name!r}"
        for key, one in inner:
            if (found := _wrong(one, kind)) is not None:
                return [key, *found[0]], found[1]
    return None


def _is_kind(value: Any, shape: Any) -> bool:
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.fullmatch(value) is not None
    if isinstance(shape, range):
        return type(value) is int and value in shape
    if shape is float:
        return type(value) is float or (type(value) is int and abs(value) < COUNT.stop)
    if shape is int:
        return type(value) is int and abs(value) < COUNT.stop
    assert shape in (str, bool)
    return type(value) is shape


def _words(shape: Any) -> str:
    if isinstance(shape, re.Pattern):
        return f"text like {shape.pattern}"
    if isinstance(shape, range):
        return "a whole number of 0 or more" if shape == COUNT else f"one from {shape.start} to {shape.stop - 1}"
    return {str: "text", bool: "true or false", int: "a whole number", float: "a number"}[shape]


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "names and values"
    if type(value) is int and abs(value) >= COUNT.stop:
        return "a number with too many digits"  # converting a huge number to text may take minutes, or be refused
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

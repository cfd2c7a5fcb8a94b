"""Read YAML files of settings and convert each value to the type of its setting.

YAML 1.1 guesses the type of what has no quotes, and so reads 12:30:00 as the number 45000, `no` as false, 010 as 8. Here
the setting's own type decides: what is written without quotes stays text until `convert` reads it as that type.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from p2p_dist.common import records
from p2p_dist.common.files import DamagedError


class Plain(str):
    """A value without quotes in YAML: text that may stand for a number or a truth value."""

    def __repr__(self) -> str:  # messages show it as it was written
        return str(self)


_TOO_DEEP = f"it is nested more than {records.DEPTH} deep"
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def read(path: Path) -> Any:
    """Read a YAML file. Every value without quotes is returned as `Plain` text, except null, which is None.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: not YAML, a name twice, an alias, a tag, or not text; names the file, and the line where there is one.
    """
    text = records.text_of(path, "correct it, or restore it from a copy")
    try:
        return _values(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        problem = error.problem or error.context
        if problem == "exceeded maximum nesting depth":  # PyYAML's own limit, which it meets while it looks ahead
            problem = _TOO_DEEP
        raise DamagedError(f"{path} is not readable as YAML: {line}{problem}") from error
    except yaml.YAMLError as error:
        raise DamagedError(f"{path} is not readable as YAML: {str(error).splitlines()[0]}") from error


def _values(events: Iterable[Any]) -> Any:
    """Return the values; refuse aliases, tags, repeated keys and several documents.

    An alias can make a few lines as large as the memory, a tag makes other things than they look like, and of a key that is
    written twice one would be lost in silence.
    """
    documents: list[Any] = []
    inside: list[Any] = [documents]
    keys: list[str | None] = [None]
    for event in events:
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = "an alias (*name) is not allowed here: write the value itself"
        elif getattr(event, "tag", None) is not None:
            problem = f"a tag ({event.tag}) is not allowed here"
        elif isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
            keys.pop()
        elif isinstance(inside[-1], dict) and keys[-1] is None and isinstance(event, yaml.NodeEvent):
            if not isinstance(event, yaml.ScalarEvent):
                problem = "a name must be text"
            elif event.value in inside[-1]:
                problem = f"{event.value} is set more than once"
            else:
                keys[-1] = event.value
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            empty: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            value = _scalar(event) if isinstance(event, yaml.ScalarEvent) else empty
            if isinstance(inside[-1], dict):
                inside[-1][keys[-1]] = value
                keys[-1] = None
            else:
                inside[-1].append(value)
            if not isinstance(event, yaml.ScalarEvent):
                inside.append(value)
                keys.append(None)
            if len(inside) > records.DEPTH:
                problem = _TOO_DEEP
            elif len(documents) > 1:
                problem = "a second YAML document starts here"
        if problem is not None:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
    return documents[0] if documents else None


def _scalar(event: yaml.ScalarEvent) -> str | None:
    if event.style or not event.implicit[0]:
        return event.value
    return None if event.value in ("~", "null", "Null", "NULL", "") else Plain(event.value)


def without_none(kind: Any) -> Any:
    """Return the type of a setting without None."""
    if get_origin(kind) not in (types.UnionType, Union):
        return kind
    (kind,) = (option for option in get_args(kind) if option is not types.NoneType)
    return kind


def convert(value: Any, kind: Any) -> Any:
    """Convert `value`, as `read` returned it, to a setting of type `kind`.

    Args:
        kind: bool, int, float, str, a Literal of texts, list[str], dict (whose values stay as they were read), or one
            of them or None.

    Raises:
        TypeError: it is not written as one. (Nobody else's ValueError.)
    """
    if value is None and kind != without_none(kind):
        return None
    kind = without_none(kind)
    if get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return str(value)
    elif kind is bool:
        if isinstance(value, Plain) and value.lower() in _TRUTH:
            return _TRUTH[value.lower()]
    elif kind is int:
        if isinstance(value, Plain) and re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", value):
            return int(value)
    elif kind is float:
        if isinstance(value, str) and re.fullmatch(r"[-+]?(\.inf|\.nan)", value, re.IGNORECASE):
            return float(value.replace(".", ""))
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
    elif kind is str:
        if isinstance(value, str):
            return str(value)
    elif get_origin(kind) is list:
        if isinstance(value, list):
            return [convert(one, get_args(kind)[0]) for one in value]
    elif get_origin(kind) is dict and isinstance(value, dict):
        return {convert(key, str): one for key, one in value.items()}
    raise TypeError(f"{value!r} is not of kind {kind}")

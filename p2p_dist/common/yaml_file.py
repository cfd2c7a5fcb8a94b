"""Read YAML files of plain values.

YAML 1.1 guesses the type of what has no quotes, and so reads 12:30:00 as the number 45000, `no` as false, 010 as 8. Here
the setting's own type decides: what is written without quotes stays text until `settings.values` reads it as that type.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from p2p_dist.common import records
from p2p_dist.common.files import DamagedError


class Plain(str):
    """A value without quotes in YAML: text that may stand for a number or a truth value."""

    def __repr__(self) -> str:  # messages show it as it was written
        return str(self)


_TOO_DEEP = f"it is nested more than {records.DEPTH} deep"


def read_yaml(path: Path) -> Any:
    """Read a YAML file. Every value without quotes is returned as `Plain` text, except null, which is None.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: not YAML, a name twice, an alias, a tag, or not text; names the file, and the line where there is one.
    """
    text = records.text_of(path, "correct it, or restore it from a copy")
    try:
        events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        next(events)  # the start of the stream; then that of a document, or the end
        content = _value(next(events), events) if isinstance(next(events), yaml.DocumentStartEvent) else None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                _refuse(event, "a second YAML document starts here")
        return content
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        problem = error.problem or error.context
        if mark and "cannot start any token" in str(problem) and re.match(r" *\t", _line(text, mark.line)):
            problem = "it begins with a tab: indent it with spaces"
        if problem == "exceeded maximum nesting depth":  # PyYAML's own limit, which it meets while it looks ahead
            problem = _TOO_DEEP
        raise DamagedError(f"{path} is not readable as YAML: {line}{problem}") from error
    except yaml.YAMLError as error:
        raise DamagedError(f"{path} is not readable as YAML: {str(error).splitlines()[0]}") from error


def _value(event: Any, events: Iterator[Any], depth: int = 1) -> Any:
    """Return the value that begins with `event`; refuse aliases, tags and repeated names.

    An alias can expand a few lines until they fill the memory, a tag changes the type of a value, and of a repeated name one
    value would be lost silently.
    """
    if isinstance(event, yaml.AliasEvent):
        _refuse(event, "an alias (*name) is not allowed here: write the value itself")
    if event.tag is not None:
        _refuse(event, f"a tag ({event.tag}) is not allowed here")
    if depth > records.DEPTH and not isinstance(event, yaml.ScalarEvent):
        _refuse(event, _TOO_DEEP)
    if isinstance(event, yaml.ScalarEvent):
        if event.style or not event.implicit[0]:
            return event.value
        return None if event.value in ("~", "null", "Null", "NULL", "") else Plain(event.value)
    inside = itertools.takewhile(lambda found: not isinstance(found, yaml.CollectionEndEvent), events)
    if isinstance(event, yaml.SequenceStartEvent):
        return [_value(item, events, depth + 1) for item in inside]
    mapping: dict[str, Any] = {}
    for key in inside:
        if not isinstance(key, yaml.ScalarEvent) or key.tag is not None:
            _refuse(key, "a name must be text")
        if key.value in mapping:
            _refuse(key, f"{key.value} is set more than once")
        mapping[key.value] = _value(next(events), events, depth + 1)
    return mapping


def _refuse(event: Any, problem: str) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _line(text: str, number: int) -> str:
    """Return line `number` of a YAML text, counted from 0, or an empty string if the text is shorter."""
    return dict(enumerate(re.split("\r\n|[\r\n\x85\u2028\u2029]", text))).get(number, "")

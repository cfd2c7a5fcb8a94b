"""Check settings: the type of a setting defines its valid values, wherever they come from.

`Annotated[int, Rule(...)]` narrows a type. Every class of settings calls `check`, which compares each value with its type and
rules. `from_file` also converts values read from a file. Rules on two settings are checked in their class.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from p2p_dist.common import console, yaml_file

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Rule:
    """A condition on a value, beside its type."""

    holds: Callable[[Any], object]
    wanted: str
    """the condition as text after "must be" """


def within(low: float, high: float, unit: str = "") -> Rule:
    """Return the rule that a value is from `low` to `high`."""
    return Rule(lambda value: low <= value <= high, f"from {low} to {high}{unit}")


Positive = Annotated[int, Rule(lambda n: n > 0, "greater than 0")]
NotNegative = Annotated[int, Rule(lambda n: n >= 0, "0 or more")]
# Products of these and of counts stay finite.
PositiveNumber = Annotated[float, Rule(lambda x: 1e-100 < x <= 1e9, "greater than 0 and at most 1e9")]
NotNegativeNumber = Annotated[float, Rule(lambda x: 0 <= x <= 1e9, "from 0 to 1e9")]
ShareBelowOne = Annotated[float, Rule(lambda x: 0 <= x < 1, "from 0 to below 1")]
Seed = Annotated[int, within(0, 2**32 - 1)]
Text = Annotated[
    str,
    Rule(
        lambda text: text.strip() and console.control_character(text) is None,
        "non-empty text without control characters",
    ),
]

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_WORDS |= {list: "a list, as [one, two], or [] for none", dict: "a list of names and values, or {} for none"}
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NUMBERS = {int: r"[-+]?(0|[1-9][0-9]{0,17})", float: r"[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|\.?inf|\.?nan)"}


@functools.cache
def _kinds(part: Any) -> dict[str, Any]:
    """Map name -> type of the settings of one class. Cached, because it is slow."""
    kinds = typing.get_type_hints(part, include_extras=True)
    return {entry.name: kinds[entry.name] for entry in dataclasses.fields(part)}


def check(part: Any, where: str = "", spelled: Callable[[str], str] = lambda name: name.replace("_", "-")) -> None:
    """Compare each value of `part`, settings of one class, with its type and the rules of its type.

    Args:
        where: prefix of names in messages, such as `train.`. spelled: converts a name for messages.

    Raises:
        ValueError: a setting has an invalid value.
    """
    for name, kind in _kinds(part.__class__).items():
        for value, wanted in _wrong(getattr(part, name), kind):
            raise ValueError(f"{where}{spelled(name)} must be {wanted}, not {_shown(value)}")


def bare(kind: Any) -> Any:
    """Return a type without its rules and without None."""
    if get_origin(kind) is Annotated:
        return bare(kind.__origin__)
    options = [option for option in get_args(kind) if option is not NoneType]
    return bare(options[0]) if get_origin(kind) in (UnionType, Union) and len(options) == 1 else kind


def _wrong(value: Any, kind: Any) -> Iterator[tuple[Any, str]]:
    """Yield each invalid value inside `value` with the text of what it must be, first by its type, then by its rules."""
    of, args = get_origin(kind) or kind, get_args(kind)
    if of is Annotated:
        yield from _wrong(value, kind.__origin__)
        yield from ((value, rule.wanted) for rule in kind.__metadata__ if isinstance(rule, Rule) and not rule.holds(value))
    elif of in (UnionType, Union):
        if not (value is None and NoneType in args):
            yield from _wrong(value, next(option for option in args if option is not NoneType))
    elif of is Literal:
        if value not in args:
            yield value, f"one of {', '.join(args)}"
    elif not isinstance(value, (int, float) if of is float else of) or (isinstance(value, bool) and of is not bool):
        yield value, _WORDS.get(of, _WORDS[dict])
    elif of is int and abs(value) >= 10**18:  # does not fit into 64 bits
        yield value, "a whole number of at most 18 digits"
    elif of in (list, tuple, dict):
        inside: Any = value
        for one in inside:  # of a dict: its names
            yield from _wrong(one, args[0])
        for one in inside.values() if of is dict else ():
            yield from _wrong(one, args[1])


def from_file(path: Path, base: Callable[[Any], Settings]) -> Settings:
    """Read the settings in a YAML file. Settings that it omits are those of `base(content)`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or has an unknown name or an invalid value; the message names the file and the setting.
    """
    content = yaml_file.read_yaml(path)
    try:
        return _replaced(base(content), content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _replaced(base: Any, content: Any, where: str = "", nulls: bool = True) -> Any:
    """Return `base` with the settings in `content`. where: name of this group of settings, such as `train`."""
    kinds, changed = _kinds(base.__class__), {}
    if not isinstance(content, dict):
        raise ValueError(f"{where or 'it'} must be {_WORDS[dict]}, not {_shown(content)}; the names are {', '.join(kinds)}")
    for name, value in content.items():
        full = f"{where}.{name}" if where else name
        if name not in kinds:
            hint = console.did_you_mean(name, kinds) or f"; there are {', '.join(kinds)}"
            raise ValueError(f"unknown setting {full if full and full.isprintable() else repr(full)}{hint}")
        kind = bare(kinds[name])
        if dataclasses.is_dataclass(kind):
            changed[name] = _replaced(getattr(base, name), value, full)
        elif value is None and not nulls:
            raise ValueError(f"{full} must not be null: give a value, or omit it")
        else:
            changed[name] = _converted(value, kind, full)
        for bad, wanted in _wrong(changed[name], kinds[name]):
            quoted = type(bad) is str and wanted in (_WORDS[bool], _WORDS[int], _WORDS[float])
            raise ValueError(f"{full} must be {wanted}{' without quotes' * quoted}, not {_shown(bad)}")
    return dataclasses.replace(base, **changed)


def _converted(value: Any, kind: Any, full: str) -> Any:
    """Convert a value that `yaml_file` read to a type; return it unchanged if it can't be converted, for `_wrong` to report.

    Args:
        full: the name of the value, as `tiers.2`.
    """
    of, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _replaced(kind(), value, full, False)  # type: ignore[operator]
    if of is list and isinstance(value, list):
        return [_converted(one, bare(args[0]), f"{full}.{number}") for number, one in enumerate(value, 1)]
    if of is dict and isinstance(value, dict):
        return {str(key): _converted(one, bare(args[1]), f"{full}.{key}") for key, one in value.items()}
    if isinstance(value, yaml_file.Plain):
        if kind is bool:
            return _TRUTH.get(value.lower(), value)
        if kind not in _NUMBERS:
            return str(value)
        if re.fullmatch(_NUMBERS[kind], value, re.I):
            return kind(re.sub(r"\.(inf|nan)", r"\1", value.lower()))
    return value


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Check settings: each setting's type says which values it takes, wherever they come from.

`Annotated[int, Rule(...)]` narrows a type. `check`, which every class of settings calls when it is made, holds each value to
its type and rules; `from_mapping` also converts what was read from a file. What concerns two settings is checked in their
class.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from p2p_dist.common import yaml_file


@dataclass(frozen=True)
class Rule:
    """What a type does not say of a value."""

    holds: Callable[[Any], object]
    wanted: str
    """in words that follow "must be" """


Positive = Annotated[int, Rule(lambda n: n > 0, "greater than 0")]
NotNegative = Annotated[int, Rule(lambda n: n >= 0, "0 or more")]
PositiveNumber = Annotated[float, Rule(lambda x: 0 < x < math.inf, "greater than 0 and finite")]
NotNegativeNumber = Annotated[float, Rule(lambda x: 0 <= x < math.inf, "0 or more and finite")]
ShareBelowOne = Annotated[float, Rule(lambda x: 0 <= x < 1, "from 0 to below 1")]
Number = Annotated[float, Rule(math.isfinite, "finite")]
Seed = Annotated[int, Rule(lambda n: 0 <= n < 2**32, "from 0 to 4294967295")]
Text = Annotated[str, Rule(str.strip, "text that is not empty")]


@functools.cache
def _kinds(part: Any, rules: bool) -> dict[str, Any]:
    """Name -> type of the settings of one class, evaluated once: it takes longer than all else here."""
    kinds = typing.get_type_hints(part, include_extras=rules)
    return {entry.name: kinds[entry.name] for entry in dataclasses.fields(part)}


def check(part: Any, where: str = "", spelled: Callable[[str], str] = lambda name: name.replace("_", "-")) -> None:
    """Hold each value of `part`, settings of one class, to its type and to the rules of its type.

    Args:
        where: what stands before a name in messages, such as `train.`; `spelled`: how the name itself is written there.

    Raises:
        ValueError: one is broken.
    """
    for name, kind in _kinds(part.__class__, True).items():
        for value, wanted in _broken(getattr(part, name), kind):
            raise ValueError(f"{where}{spelled(name)} must be {wanted}, not {value!r}")


def _broken(value: Any, kind: Any) -> Iterator[tuple[Any, str]]:
    """What is wrong inside a value: a value and what it must be, in words; first that of its type, then that of its rules."""
    if get_origin(kind) is Annotated:
        yield from _broken(value, kind.__origin__)
        yield from ((value, rule.wanted) for rule in kind.__metadata__ if isinstance(rule, Rule) and not rule.holds(value))
    elif kind != yaml_file.without_none(kind):
        if value is not None:
            yield from _broken(value, yaml_file.without_none(kind))
    elif get_origin(kind) is Literal:
        if value not in get_args(kind):
            yield value, _in_words(kind)
    elif not isinstance(value, _HELD_AS.get(kind, get_origin(kind) or kind)) or (isinstance(value, bool) and kind is not bool):
        yield value, _in_words(kind)
    elif get_origin(kind) in (list, dict):
        for one in value if get_origin(kind) is list else value.values():
            yield from _broken(one, get_args(kind)[-1])


def from_mapping(base: Any, values: Any, where: str = "") -> Any:
    """`base`, settings of one class, with those replaced that `values`, read by `yaml_file.read`, names; all the way down.

    Args:
        where: the name of `values` itself, as in `train.steps`; empty at the top of a file.

    Raises:
        ValueError: an unknown name, or a value that its setting does not take.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'it'} must be {_WORDS[dict]}, not {values!r}")
    kinds = _kinds(base.__class__, False)
    changed = {}
    for name, value in values.items():
        full = f"{where}.{name}" if where else str(name)
        if name not in kinds:
            close = difflib.get_close_matches(str(name), kinds, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(kinds)}"
            raise ValueError(f"unknown setting {full}; {hint}")
        changed[name] = _convert(getattr(base, name), value, kinds[name], full)
    return dataclasses.replace(base, **changed, **replaced(base, changed))


def _convert(old: Any, value: Any, kind: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_mapping(old or kind(), value, where)  # type: ignore[operator]
    if get_origin(kind) is dict and isinstance(value, dict):
        return {str(name): _entry(one, get_args(kind)[1], f"{where}.{name}") for name, one in value.items()}
    try:
        return yaml_file.convert(value, kind)
    except TypeError as error:
        quoted = isinstance(value, str) and not isinstance(value, yaml_file.Plain)
        raise ValueError(f"{where} must be {_in_words(kind)}{' without quotes' * quoted}, not {value!r}") from error


def _entry(value: Any, kind: Any, where: str) -> Any:
    """One of many settings of a class, which does not know its name."""
    try:
        return from_mapping(kind(), value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


_HELD_AS = {float: (int, float)}
"""What values of a type are held as, where that is not the type itself: a setting of 100.0 may be written as 100."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_WORDS |= {list: "a list, as [one, two], or [] for none", dict: "a list of names and values, or {} for none"}


def _in_words(kind: Any) -> str:
    kind = yaml_file.without_none(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _WORDS.get(get_origin(kind) or kind, _WORDS[dict])


def replaced(base: Any, named: dict[str, Any]) -> dict[str, None]:
    """The settings of `base` that `named` take the place of: of each of its class's ALTERNATIVES, exactly one has a value."""
    return {
        other: None
        for pair in getattr(type(base), "ALTERNATIVES", ())
        for one, other in (pair, pair[::-1])
        if named.get(one) is not None and other not in named
    }

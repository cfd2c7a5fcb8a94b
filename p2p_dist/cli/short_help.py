"""The answer to --help of commands with many options: one screen of what most users need, made from the settings' docstrings.

It is printed without the parser, which takes several times as long. --help-all lists everything.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
import textwrap
from typing import Any

from p2p_dist.common import console

_COLUMN = 22
"""Width of the column of option names."""


def is_asked(arguments: list[str]) -> bool:
    """Whether a command line asks for the short help."""
    return ("--help" in arguments or "-h" in arguments) and "--help-all" not in arguments


def show(command: str, kind: type, options: dict[str, tuple[type, str]], others: int) -> None:
    """Print the help of a command.

    Args:
        kind: its dataclass, whose docstring says what it does. options: option, with the name of its value, -> the dataclass
            and the field that document it. others: number of options that are not shown.
    """
    width = max(60, min(100, shutil.get_terminal_size((80, 24)).columns))
    program = console.command(command)
    lines = [f"usage: {program} [OPTIONS]", ""]
    for paragraph in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        lines += textwrap.wrap(paragraph, width)
    lines.append("")
    for option, (part, name) in options.items():
        told = textwrap.wrap(field_docs(part)[name].partition("; ")[0], width - _COLUMN - 2)
        first = f"  {option:{_COLUMN - 1}} {told[0]}"
        if len(option) >= _COLUMN:
            first = f"  {option}\n{'':{_COLUMN + 2}}{told[0]}"
        lines += [first, *(f"{'':{_COLUMN + 2}}{text}" for text in told[1:])]
    lines += ["", *textwrap.wrap(f"{others} further options, with all defaults: {program} --help-all", width)]
    console.say("\n".join(lines))


def field_docs(part: type) -> dict[str, str]:
    """Return the docstring of each field of a dataclass, which is the string below it, in one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text: Any = ast.literal_eval(below.value)
            found[field.target.id] = " ".join(text.split())
    return found


def count(part: type) -> int:
    """Return the number of settings of a dataclass and of those in it."""
    total = 0
    for entry in dataclasses.fields(part):
        inner = type(entry.default_factory()) if callable(entry.default_factory) else type(entry.default)
        total += count(inner) if dataclasses.is_dataclass(inner) else 1
    return total

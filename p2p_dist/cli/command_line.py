"""Parse the command line of all commands into dataclasses. An error is one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from typing import Any

import tyro

from p2p_dist.common import console


def parse(kind: Any, command: str, arguments: list[str], default: Any = None) -> Any:
    """Parse the command line as `kind`: a dataclass, or a union of them for subcommands.

    Args:
        command: its name, such as `submit`. default: an instance of `kind` with the default values.

    Raises:
        ValueError: an option is unknown, or a value is invalid; the message is one line that says what to do.
        SystemExit: with 0, after --help, --help-all (the same, where --help is not shorter) or --tyro-print-completion.
    """
    arguments = ["--help" if word == "--help-all" else word for word in arguments]
    program = console.command(command)
    given = {} if default is None else {"default": default}
    if any(word in ("-h", "--help") or word.startswith("--tyro-") for word in arguments):  # shown in the width of the terminal
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return tyro.cli(kind, prog=program, args=arguments, **given)
        except SystemExit as left:
            if not left.code:
                raise
    # An error is read as in a file with very long lines: without colours and line breaks.
    said, width = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            return tyro.cli(kind, prog=program, args=arguments, **given)
    finally:
        os.environ.pop("COLUMNS") if width is None else os.environ.update(COLUMNS=width)
    said.seek(0)
    raise ValueError(_in_one_line(said.read(), arguments, program))


def take_option(arguments: list[str], *names: str) -> tuple[list[str], list[str]]:
    """Return the values of an option, which may be given more than once, and the command line without it.

    Args:
        names: all names of the option, such as `--task`. An option without a value stays in the command line.
    """
    values: list[str] = []
    rest: list[str] = []
    words = iter([*arguments, None])
    word = next(words)
    while word is not None:
        name, equals, value = word.partition("=")
        following = next(words)
        if name in names and equals:
            values.append(value)
        elif name in names and following is not None and not following.startswith("--"):
            values.append(following)
            following = next(words)
        else:
            rest.append(word)
        word = following
    return values, rest


_WANTED = {"INT": "a whole number", "FLOAT": "a number", "STR": "text", "PATH": "a path"}


def _in_one_line(box: str, arguments: list[str], program: str) -> str:
    """Convert tyro's error box to one line: what is wrong, where, and what to do."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│ ")
        if not text.strip("─"):
            parts.append([])
        elif not line.startswith(("╭", "╰")):
            parts[-1].append(text)
    parts = [part for part in parts if part] or [[f"{' '.join(arguments)!r} can't be read"]]
    first, others = " ".join(parts[0]), [line for part in parts[1:] for line in part]
    see = f"'{program} --help' lists the options"
    if first.startswith("Unrecognized"):
        return _unknown(first, others, arguments, program)
    if found := re.fullmatch(r"Expected one of \{(.*)\}\.", first):
        return f"choose one of {found[1]}; '{program} --help' describes each"
    if found := re.search(r"argument '.*?(--[\w.-]+)[',)]*\. Expected 1 ", first):
        return f"{found[1]} needs a value; {see}"
    if found := re.match(r"Missing from .*?: (\S+)", first):
        return f"{found[1]} is missing; {see}"
    if found := re.search(r"invalid choice:? '(.*?)'", first):
        named, choices = re.search(r"--[\w.-]+", first), re.findall(r"'([\w-]+)'", first.partition("(")[2])
        what = named[0] if named else "it"
        return f"{what} must be one of {', '.join(choices)}, not {found[1]!r}{console.did_you_mean(found[1], choices, 0.5)}"
    found = re.fullmatch(r"Error parsing (\S+): (.*)", first)
    if found is None:
        return f"{first}; {see}"
    where, why = found[1].split("/")[-1], found[2]  # help shows the last name of an option
    if not where.startswith("-"):  # an error of a settings class, which names the setting
        return why
    value = re.search(r"invalid literal for int\(\).*: (.*)|could not convert string to float: (.*)|.* \[('.*')\]", why)
    if value is None:
        return f"{where}: {why}"
    metavar = next((line.split(" ")[1] for line in others if line.startswith("--") and " " in line), "")
    wanted = [_WANTED.get(kind, kind) for kind in re.findall(r"\w+", metavar)]
    return f"{where} must be {' or '.join(sorted(wanted, key='None'.__eq__))}, not {value[1] or value[2] or value[3]}"


def _unknown(first: str, others: list[str], arguments: list[str], program: str) -> str:
    """Return the message for an unknown option or argument."""
    listed = re.split(r"[\s,]+", first)
    unknown = [name for name in (word.partition("=")[0] for word in arguments if word in listed) if name]
    unknown = [name for name in unknown if name.startswith("-")] or unknown or [first.partition(": ")[2]]
    subcommands = next((line.partition(": ")[2].split(", ") for line in others if line.startswith("Available sub")), [])
    offered = [re.split("[ ,]", line)[0] for line in others if line.startswith("--")]
    if subcommands and unknown[0] in offered:
        return f"before {unknown[0]}, name one of {', '.join(subcommands)}"
    what = "option" if unknown[0].startswith("-") else "argument"
    if "--" in arguments:  # which makes arguments of all options behind it
        return f"unknown option --: omit it; '{program} --help' lists what is available"
    hint = console.did_you_mean(unknown[0], [*offered, *subcommands], 0.5) or f"; '{program} --help' lists what is available"
    if os.path.lexists(unknown[0]):
        hint = f"; to name the file, type {shlex.quote(f'./{unknown[0]}')}"
    return f"unknown {what} {unknown[0] or repr('')}{hint}"

"""The answer to --help of commands with many options: one screen of what most users need, made from the settings' docstrings.

It reads the source of the settings instead of importing them, and no parser is needed: each takes longer than all that is left.
--help-all lists everything.
"""

from __future__ import annotations

import ast
import functools
import inspect
import shutil
import textwrap
from pathlib import Path

from p2p_dist.common import console

_COLUMN = 22
"""Width of the column of option names."""

_DATA, _WHERE, _RESOURCES = "settings/data.py Data", "settings/resources.py Where", "settings/resources.py Resources"
_SUBMIT, _PREPROCESS, _GENERATE = "cli/submit.py Command", "cli/preprocess.py Command", "cli/generate.py Command"
_PREFLIGHT = "cli/check.py Preflight"

_CLUSTER = {
    "--cluster NAME": (_WHERE, "cluster"),
    "--site FILE": (_WHERE, "site"),
    "--account NAME": (_WHERE, "account"),
    "--partition NAME": (_WHERE, "partition"),
    "--container IMAGE": (_WHERE, "container"),
}

SHORT = {
    "submit": (
        _SUBMIT,
        {
            "--data DIR": (_DATA, "root"),
            "--task TASK": (_DATA, "task"),
            "--preset NAME": (_SUBMIT, "preset"),
            "--run NAME": (_SUBMIT, "run"),
            "--nodes N": (_RESOURCES, "nodes"),
            **_CLUSTER,
            "--time TIME": (_RESOURCES, "time"),
            "--evaluate WHEN": (_RESOURCES, "evaluate"),
            "--dry-run": (_SUBMIT, "dry_run"),
            "--wait": (_SUBMIT, "wait"),
            "--torchrun": (_SUBMIT, "torchrun"),
            "--sweep KEY=A,B ...": (_SUBMIT, "sweep"),
            "--config FILE": (_SUBMIT, "config"),
        },
    ),
    "preprocess": (
        _PREPROCESS,
        {
            "--data DIR": (_DATA, "root"),
            "--task TASK": (_DATA, "task"),
            "--out DIR": (_PREPROCESS, "out"),
            "--preset NAME": (_PREPROCESS, "preset"),
            "--workers N": (_PREPROCESS, "workers"),
            "--verify": (_PREPROCESS, "verify"),
            "--upload ADDRESS": (_PREPROCESS, "upload"),
            **_CLUSTER,
            "--array N": (_PREPROCESS, "array"),
            "--time TIME": (_PREPROCESS, "time"),
            "--dry-run": (_PREPROCESS, "dry_run"),
        },
    ),
    "generate": (
        _GENERATE,
        {
            "--model MODEL": (_GENERATE, "model"),
            "--out DIR": (_GENERATE, "out"),
            "--level DB": (_GENERATE, "level"),
            "--from SECONDS": (_GENERATE, "begin"),
            "--to SECONDS": (_GENERATE, "end"),
            "--takes N": (_GENERATE, "takes"),
            "--seed N": (_GENERATE, "seed"),
            "--format FORMAT": (_GENERATE, "format"),
            "--bpm TEMPO": (_GENERATE, "bpm"),
            "--half-beat": (_GENERATE, "half_beat"),
            "--density N": (_GENERATE, "density"),
            "--overwrite": (_GENERATE, "overwrite"),
            "--cluster NAME": (_WHERE, "cluster"),
            "--account NAME": (_WHERE, "account"),
            "--array N": (_GENERATE, "array"),
        },
    ),
    "check preflight": (
        _PREFLIGHT,
        {
            "--data DIR": (_PREFLIGHT, "data"),
            "--nodes N": (_RESOURCES, "nodes"),
            **_CLUSTER,
            "--time TIME": (_RESOURCES, "time"),
        },
    ),
}
"""For each command that has a short help: the file and class whose docstring describes it, and its options. Each option has the
file, class and field whose docstring describes it."""

_OPERANDS = {"generate": " SONG ..."}


def show(command: str, arguments: list[str]) -> bool:
    """Print the help of a command if its command line asks for it; return whether it did."""
    if "--help-all" in arguments or not {"--help", "-h"} & set(arguments):
        return False
    if command == "check" and "preflight" in arguments:
        command = "check preflight"
    if command not in SHORT:
        return False
    name, _, subcommand = command.partition(" ")
    console.say(_screen(f"{console.command(name)} {subcommand}".rstrip(), _OPERANDS.get(command, ""), *SHORT[command]))
    return True


def _screen(program: str, operands: str, kind: str, options: dict[str, tuple[str, str]]) -> str:
    width = max(60, min(100, shutil.get_terminal_size((80, 24)).columns))
    lines = [f"usage: {program} [OPTIONS]{operands}", ""]
    for paragraph in _documented(kind)[""].split("\n\n"):
        lines += textwrap.wrap(paragraph, width)
    lines.append("")
    for option, text in summaries(options).items():
        told = textwrap.wrap(text, width - _COLUMN - 2, break_on_hyphens=False)
        first = f"  {option:{_COLUMN - 1}} {told[0]}"
        if len(option) >= _COLUMN:
            first = f"  {option}\n{'':{_COLUMN + 2}}{told[0]}"
        lines += [first, *(f"{'':{_COLUMN + 2}}{more}" for more in told[1:])]
    lines += ["", *textwrap.wrap(f"all options, with their defaults: {program} --help-all", width)]
    return "\n".join(lines)


def summaries(options: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the text of each option: its docstring, up to the first semicolon."""
    return {option: " ".join(_documented(part)[field].split()).partition("; ")[0] for option, (part, field) in options.items()}


@functools.cache
def _documented(kind: str) -> dict[str, str]:
    """Return the docstring of each field of a dataclass, which is the string below it, and its own under the empty name.

    Args:
        kind: the file below the package, and the name in it, such as `settings/data.py Data`.
    """
    file, _, name = kind.partition(" ")
    source = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    body = next(node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    found: dict[str, str] = {}
    for before, below in zip([None, *body], body, strict=False):
        if isinstance(below, ast.Expr):
            text: str = ast.literal_eval(below.value)
            if before is None:
                found[""] = inspect.cleandoc(text)
            elif isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
                found[before.target.id] = text
    return found

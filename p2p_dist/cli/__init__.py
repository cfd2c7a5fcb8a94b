"""The commands, one file each: parse the command line, report errors, call the library. No logic of stages or jobs.

`p2p-dist submit ...` and `launch/submit.py ...` are the same command. Importing a command imports no torch and no numpy: a
login node runs submit, status, cancel and check without them. What jobs and stages do does not belong here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import operator
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

from p2p_dist.cli import short_help
from p2p_dist.common import console, file_names

COMMANDS = ("submit", "preprocess", "evaluate", "generate", "export", "compose", "status", "track", "cancel", "check", "site")

_ANSWERS = ("status", "site", "evaluate")
"""Commands of which the output is the result."""


def main() -> NoReturn:
    """Run the program `p2p-dist`: its first argument names the command."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        run(words[0], words[1:])
    run(None, words)


def run(command: str | None, arguments: list[str]) -> NoReturn:
    """Run one of `COMMANDS` (None: no command was given) and exit with its exit code."""
    # No other user may write files of a run, because jobs run them; this one must be able to read and write them again.
    os.umask((os.umask(0o022) | 0o022) & 0o077)
    console.open_standard_streams()
    console.stop_as_ctrl_c()
    console.exit_with(functools.partial(_run, command, arguments))


def _run(command: str | None, arguments: list[str]) -> int:
    for name in [*arguments, *(os.environ.get(place, "") for place in ("P2P_RUNS", "MUSDB_PATH", "PWD"))]:
        file_names.check_locale(name)
        if command != "generate":  # songs may have any name
            file_names.check_encodes(name)
    try:
        if command is None:
            return _choose(arguments)
        if short_help.show(command, arguments):
            return console.DONE
        code: int = importlib.import_module(f"p2p_dist.cli.{command}").main(arguments)
        if command in _ANSWERS or "--dry-run" in arguments:
            console.refuse_lost()
        return code
    except FileNotFoundError as error:
        if error.filename is None and not _is_somewhere():
            raise OSError(
                errno.ENOENT, "the current folder was removed: go to another one, and run the command again"
            ) from error
        raise
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("p2p_dist"):
            raise
        raise ValueError(f"the package {error.name} is missing in {sys.executable}; {console.INSTALL}") from error


def _is_somewhere() -> bool:
    """Whether the current folder exists."""
    with contextlib.suppress(FileNotFoundError):
        return bool(Path.cwd())
    return False


def _choose(arguments: list[str]) -> int:
    """Handle --help, --version, --tyro-print-completion, and command lines without a valid command."""
    import tyro

    from p2p_dist.cli import command_line, submit

    if "--version" in arguments:
        return submit.main(["--version"])
    kinds: list[Any] = []
    for name in COMMANDS:
        kind = importlib.import_module(f"p2p_dist.cli.{name}").Command
        kinds.append(Annotated[kind, tyro.conf.subcommand(name, description=kind.__doc__.splitlines()[0])])
    command_line.parse(functools.reduce(operator.or_, kinds), "", arguments)
    raise AssertionError("a command line without a command was taken")

"""--help of commands with many options: one screen, true of the parser."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest

from p2p_dist.cli import short_help, submit
from tests.jobs.submit_command import CHECKOUT, type_here


def test_it_is_one_screen_and_every_option_is_one_of_the_parser(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    short = type_here("submit", "--nodes", "2", "--help")
    assert short.returncode == 0 and short.stderr == ""
    lines = short.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 80 and lines[0] == "usage: launch/submit.py [OPTIONS]"
    named = re.findall(r"^  (--[\w-]+)", short.stdout, re.MULTILINE)
    every = type_here("submit", "--help-all")
    assert every.returncode == 0
    offered = re.findall(r"^[ │] (--[a-z].*?) *│?$", every.stdout, re.MULTILINE)
    words = {word.strip(",") for line in offered for word in line.split()}
    assert len(named) == len(submit.COMMON) and set(named) <= words and "or never" in short.stdout
    assert f"\n{len(offered) - len(named)} further options" in short.stdout


@pytest.mark.parametrize(("columns", "width"), [("20", 60), ("400", 100)])
def test_its_width_is_bounded(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    lines = type_here("submit", "-h").stdout.splitlines()
    assert width - 20 < max(map(len, lines)) <= width


def test_other_commands_know_the_longer_one_too():
    assert type_here("status", "--help-all").stdout == type_here("status", "--help").stdout


def test_it_needs_no_parser():
    """Which takes as long again as all else."""
    program = (
        "import runpy, sys, tyro; tyro.cli = None; sys.argv = ['launch/submit.py', '--help']; sys.path.insert(0, 'launch'); "
    )
    program += "runpy.run_path('launch/submit.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--nodes N" in done.stdout, done.stderr


@dataclasses.dataclass(frozen=True)
class Inner:
    """Settings in others."""

    one: int = 1
    """first
    line"""
    two: int | None = None
    """second; more"""


@dataclasses.dataclass(frozen=True)
class Outer:
    """For a test."""

    three: str = ""
    """third"""
    undocumented: int = 0
    inner: Inner = dataclasses.field(default_factory=Inner)
    also: Inner = Inner()


def test_settings_are_read_from_their_docstrings(monkeypatch, capsys):
    assert short_help.field_docs(Inner) == {"one": "first line", "two": "second; more"}
    assert short_help.field_docs(Outer) == {"three": "third"}
    assert short_help.count(Outer) == 6
    monkeypatch.setenv("COLUMNS", "80")
    short_help.show("submit", Outer, {"--one": (Inner, "one"), "--an-option-with-a-long-name N": (Inner, "two")}, 3)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "For a test.",
        "",
        "  --one                 first line",
        "  --an-option-with-a-long-name N",
        "                        second",
        "",
        f"3 further options, with all defaults: {short_help.console.command('submit')} --help-all",
    ]

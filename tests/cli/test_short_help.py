"""--help is one screen, answered at once, and true of the parser."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from p2p_dist import cli
from p2p_dist.cli import short_help
from tests.jobs.submit_command import CHECKOUT, type_here

ASKED = ([name] for name in cli.COMMANDS if name not in ("check", "site"))
ASKED = [*ASKED, ["check"], ["check", "preflight"], ["check", "scaling"], ["check", "drill"], ["site"]]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_it_is_one_screen_of_options_that_the_parser_has(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    short = type_here(*words, "--help")
    lines = short.stdout.splitlines()
    assert short.returncode == 0 and short.stderr == "" and 5 < len(lines) <= 40
    assert lines[0].startswith(f"usage: python launch/{words[0]}.py {' '.join(words[1:])}".rstrip())
    every = type_here(*words, "--help-all").stdout
    for text in (short.stdout, " ".join(every.replace("│", " ").split())):
        assert not re.search(r"default:[^()]*\)\s*\(default:", text), "a default, and another one"
    if " ".join(words) not in short_help.SHORT:
        assert every == short.stdout
        return
    assert max(map(len, lines)) <= 80 and lines[-1].endswith(f"{' '.join(['', *words[1:]])} --help-all")
    offered = {word.strip(",") for line in re.findall(r"^[ │] (--[a-z].*?) *│?$", every, re.MULTILINE) for word in line.split()}
    named = re.findall(r"^  (--[\w.-]+)", short.stdout, re.MULTILINE)
    assert len(named) == len(short_help.SHORT[" ".join(words)][1]) and set(named) <= offered
    flat = re.sub(r"[\s│]+", " ", every)
    for text in re.findall(r"^  --\S+(?: [A-Z][\w,=.]*)?(?: \.\.\.)?\s+((?:.*\n)(?: {24}.*\n)*)", short.stdout, re.MULTILINE):
        assert " ".join(text.split()) in flat, "its text is that of the longer help"


def test_a_summary_ends_at_the_first_semicolon():
    shown = type_here("generate", "--help").stdout
    assert (
        "seed of the random choices that vary the result\n" in shown
        and "usage: python launch/generate.py [OPTIONS] SONG ...\n" in shown
    )


@pytest.mark.parametrize(("columns", "width"), [("20", 60), ("400", 100)])
def test_its_width_is_bounded(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    lines = type_here("submit", "-h").stdout.splitlines()
    assert width - 20 < max(map(len, lines)) <= width


@pytest.mark.parametrize("words", short_help.SHORT)
def test_it_takes_a_third_of_a_second_of_processor_at_most(words):
    """No parser and no settings are imported, which take longer than all else."""
    name, *rest = words.split()
    program = (
        f"import resource, runpy, sys; sys.argv = ['launch/{name}.py', *{rest}, '--help']; sys.path.insert(0, 'launch')\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    seconds, *modules = last.split()
    assert shown[-1].endswith("--help-all") and float(seconds) <= 0.3
    assert not {"tyro", "yaml", "rich", "numpy", "torch", "p2p_dist.settings"} & set(modules)

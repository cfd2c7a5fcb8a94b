"""What the README says is what the program says: options, presets, messages, figures, and every command that it shows."""

import ast
import importlib
import os
import re
import shlex
from pathlib import Path

import pytest

from p2p_dist.cli import command_line, preprocess, short_help, submit, sweep
from p2p_dist.data.composed import grooves
from p2p_dist.settings import presets
from tests.jobs.submit_command import place, songs, type_here  # noqa: F401

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / "README.md"
SHOWN = ("README.md", "hpc/README.md", "hpc/LUMI.md", "containers/README.md")


def table_of(command):
    """The Markdown table of a command's most common options, from the settings' docstrings."""
    rows = [f"| `{option}` | {text} |" for option, text in short_help.summaries(short_help.SHORT[command][1]).items()]
    return "\n".join([f"| option of {command} | |", "| --- | --- |", *rows])


def test_the_tables_of_options_are_made_from_the_code():
    """RECORD=1 writes them."""
    text = README.read_text()
    tables = r"<!-- options of (\w+) -->\n(?:.*\n)*?<!-- end -->"
    made = re.sub(tables, lambda found: f"<!-- options of {found[1]} -->\n{table_of(found[1])}\n<!-- end -->", text)
    assert re.findall(tables, text) == ["generate", "submit"]
    if os.environ.get("RECORD"):
        README.write_text(made)
    assert text == made


def test_the_presets_are_those_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| ", README.read_text().split("| preset | for |")[1].split("\n\n")[0], re.MULTILINE)
    assert sorted(rows) == sorted(presets.PRESETS)


def test_the_number_of_styles_is_that_of_the_code():
    assert f"from a seed in {len(grooves.STYLES)} styles" in README.read_text()


def commands(document):
    """Every command line of ours in a document, as (command, words); variables of the same document are filled in."""
    variables, fenced = {}, False
    for line in (CHECKOUT / document).read_text().replace("\\\n", " ").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    "):
            continue
        if found := re.match(r'\s*(?:export )?([A-Z]+)=("[^"]*"|\S+)', line):
            variables[found[1]] = found[2].strip('"')
        if found := re.match(r"\s*(?:\S*python launch/(\w+)\.py|p2p-dist (?!--)(\w+))(?: (.*))?$", line):
            text = found[3] or ""
            for name in sorted(variables, key=len, reverse=True) * 2:  # one may hold another
                text = text.replace(f"${name}", variables[name])
            yield found[1] or found[2], [word for word in shlex.split(text, comments=True) if word != "..."]


@pytest.mark.parametrize("document", SHOWN)
def test_every_command_that_is_shown_is_one_that_the_program_takes(document, place):  # noqa: F811
    found = list(commands(document))
    assert found
    for name, words in found:
        if not any(word.startswith("--") for word in words) and name == "submit":
            continue
        try:
            if name == "submit":
                submit.parse(sweep.split(words)[0])
            elif name == "preprocess":
                preprocess.parse(words)
            else:
                command_line.parse(importlib.import_module(f"p2p_dist.cli.{name}").Command, name, words)
        except ValueError as error:
            pytest.fail(f"{document}: {name} {shlex.join(words)}: {error}")


def test_what_is_in_a_block_of_code_has_a_test():
    """bash: run as it is (tests/readme); sh: of a cluster, read by the parser above; text and indented: no commands."""
    text = README.read_text()
    assert set(re.findall(r"^```(\w*)$", text, re.MULTILINE)) == {"bash", "sh", "text", ""}
    assert not re.search(r"^    .*(launch/|p2p-dist )", text, re.MULTILINE)


def said_by_the_code():
    """Every text of the program, in one line, with … where a value stands."""
    for path in [*sorted((CHECKOUT / "p2p_dist").rglob("*.py")), CHECKOUT / "launch" / "start.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_of_the_troubleshooting_are_those_that_the_code_prints():
    table = README.read_text().split("| you see | type, or do |\n| --- | --- |\n")[1].split("\n\n")[0]
    shown = [row.split(" | ")[0] for row in table.splitlines()]
    messages = [message for cell in shown for message in re.findall("`([^`]+)`", cell)]
    messages = [message for message in messages if message not in ("status", "kill -9", "scancel")]
    said = list(said_by_the_code())
    assert len(messages) >= 20
    for message in messages:
        parts = [re.escape(part.strip()) for part in message.split("…")]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        assert any(pattern.search(text) for text in said), f"no message of the program is like: {message}"
    commands = re.findall(r"`((?:--|make |python )[^`]+)`", table)
    offered = "".join(type_here(name, "--help-all").stdout for name in ("submit", "generate"))
    assert {word for text in commands for word in re.findall(r"--[a-z][\w.-]+", text)} <= set(re.findall(r"--[\w.-]+", offered))


def test_every_figure_is_in_the_file_of_results_that_its_row_names():
    rows = README.read_text().split("## Figures")[1].split("\n\n")[1].splitlines()[2:]
    assert len(rows) >= 5
    for row in rows:
        _, _, figure, by, where, _ = (cell.strip() for cell in row.split("|"))
        results = (CHECKOUT / re.search(r"`([\w/]+\.md)`", where)[1]).read_text()
        assert all(number in results for number in re.findall(r"\d[\d.,]*\d", figure.replace("3 million", "3"))), row
        program = by.strip("`")
        assert (
            program.split()[1] + ":" in (CHECKOUT / "Makefile").read_text()
            if program.startswith("make")
            else (CHECKOUT / program).is_file()
        )


def test_the_gpu_hours_of_the_first_page_on_lumi_are_those_of_the_dry_run(place):  # noqa: F811
    lines = [words for name, words in commands("README.md") if name == "submit" and "--max-requeues" in words]
    assert len(lines) == 2
    image = place / "image.sif"
    image.touch()
    done = type_here("submit", *[str(image) if word.endswith((".sif", ".sqsh")) else word for word in lines[0]])
    printed = done.stdout
    told = re.search(r"at most ([\d.]+) GPU-hours", README.read_text())[0]
    assert f"# {told}" in printed, printed + done.stderr

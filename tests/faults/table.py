"""Generate FAULTS.md from the docstrings of the tests: python -m tests.faults.table

A test that answers a fault says so in its docstring: `Rows 6, 7: the fault.`, then `Seen:` what a user saw of it where nothing
was done about it, then `Now:` what happens. The numbers name the faults; several tests may answer one.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "FAULTS.md"
FIGURES = HERE / "soak.txt"


def rows() -> list[tuple[list[int], str, str, str, str]]:
    """Numbers, fault, what was seen, what happens now, and the test, in the order of the numbers."""
    found = []
    for path in sorted(HERE.parent.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = (ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else ""
            match = re.fullmatch(r"Rows? ([\d, ]+): (.+?)(?:\n\nSeen: (.+?)\nNow: (.+))?", text, re.DOTALL)
            if match is None:
                continue
            numbers = [int(number) for number in match.group(1).split(",")]
            fault, seen, now = (" ".join((part or "").split()) for part in match.groups()[1:])
            found.append((numbers, fault, seen, now, f"{path.relative_to(HERE.parent)}::{node.name}"))
    return sorted(found, key=lambda row: (row[0], row[4]))


def table() -> str:
    """The whole of FAULTS.md."""
    lines = [
        "# Faults injected into trainings, and how they are handled",
        "",
        "Generated from the docstrings of the tests by `python -m tests.faults.table`. Each test that claims exactness has a",
        "counterpart in which the mechanism is disabled and which must fail. Rows with the same number concern the same kind",
        "of fault. Paths of tests are relative to `tests/`.",
        "",
        "| # | fault | effect if it is not handled | behaviour of this program | test |",
        "| --- | --- | --- | --- | --- |",
    ]
    for numbers, *texts, test in rows():
        told = [text.replace("|", "\\|") for text in texts]
        lines.append(f"| {', '.join(map(str, numbers))} | {' | '.join(told)} | `{test}` |")
    if FIGURES.is_file():
        lines += ["", "## A long soak", "", *FIGURES.read_text(encoding="utf-8").rstrip().splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")

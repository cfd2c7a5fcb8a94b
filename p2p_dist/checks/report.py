"""The results of checks, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass

from p2p_dist.common import console

OK, FAILED, NONE = "ok", "FAILED", "-"
"""Results of a check; NONE: it does not apply here."""


@dataclass(frozen=True)
class Finding:
    """The result of one check, and what to do if it failed."""

    check: str
    state: str
    found: str
    todo: str = ""


def report(found: list[Finding]) -> int:
    """Print the table; exit code: 0 nothing failed, 1 something did."""
    width = max(len(one.check) for one in found)
    for one in found:
        console.say(f"{one.state:6}  {one.check:{width}}  {one.found}")
        if one.state == FAILED and one.todo:
            console.say(f"{'':6}  {'':{width}}  -> {one.todo}")
    bad = sum(one.state == FAILED for one in found)
    console.say(f"{bad} of {len(found)} checks failed" if bad else f"all {len(found)} checks passed or do not apply")
    return console.FAILED if bad else console.DONE

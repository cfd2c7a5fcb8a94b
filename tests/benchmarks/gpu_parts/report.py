"""The report in words: a table for each question, what failed with its last lines, what was not run, and how the aims stand."""

from __future__ import annotations

from typing import Any

TITLES = {"runs": "1. Does it run", "right": "2. Is it right", "fast": "3. How fast is it", "rest": "4. The rest"}
EARLIER = " (earlier)"
LABEL = "measured earlier"
IMAGES = 3_000_000
"""Of the thesis's training, which took 70 hours."""


def value(one: Any) -> str:
    if isinstance(one, bool):
        return "yes" if one else "no"
    if isinstance(one, float):
        return f"{one:.4g}" if abs(one) < 10_000 else f"{one:,.0f}"
    return str(one).replace("|", "/")


def row_in_words(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value(one)}" for name, one in row.items())


def about_in_words(about: dict[str, Any]) -> str:
    parts = [about["device"]]
    if "card_memory" in about:
        parts.append(f"{about['card_memory'] / 1e9:.0f} GB, {about['processors']} multiprocessors, driver: {about['driver']}")
    parts.append(f"{about['cores']} cores ({about['processor']}), {about['memory'] / 1e9:.0f} GB")
    parts.append(", ".join(f"{name} {version}" for name, version in about["versions"].items() if version != "None"))
    parts.append(f"commit {about['commit']}, code {about['code']}")
    return "; ".join(parts)


def table(rows: list[dict[str, Any]]) -> list[str]:
    names = sorted(dict.fromkeys(name for row in rows for name in row), key=lambda name: name == LABEL)  # it comes last
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + ["| " + " | ".join(value(row[name]) if name in row else "" for name in names) + " |" for row in rows]


def in_words(content: dict[str, Any]) -> str:
    """All that is known, as Markdown."""
    about, found = content["about"], shown(content)
    lines = ["# Measurements on a GPU", ""]
    if about["kind"] == "cpu":
        lines = ["# A trial on a CPU, in small", ""]
        lines += ["Networks of test size on a processor: this says that the script works, and nothing of how a GPU is.", ""]
    lines += [about_in_words(about), "", f"`python tests/benchmarks/gpu.py`, written {about.get('written', '')}", ""]
    if about["kind"] == "cuda":
        lines += [
            *aims({name: one for name, one in found.items() if one.get("device", about["device"]) == about["device"]}),
            "",
        ]
    if notes := content.get("notes"):  # written by hand into gpu.json
        lines += [*(f"- {note}" for note in notes), ""]
    for part, title in TITLES.items():
        mine = {name.partition("/")[2]: one for name, one in found.items() if name.startswith(f"{part}/")}
        lines += [f"## {title}", ""]
        if not mine:
            lines.append("- not run: this part was not begun")
        begun: set[str] = set()
        for name, one in mine.items():
            together = one.get("table") or name.partition(EARLIER)[0]
            if together not in begun:
                begun.add(together)
                alike = [it for other, it in mine.items() if (it.get("table") or other.partition(EARLIER)[0]) == together]
                if rows := [row for other in alike for row in labelled(other)]:
                    lines += [f"### {one.get('title') or name}", "", *table(rows), ""]
        for name, one in mine.items():
            if one["state"] == "failed":
                lines += [f"**failed: {name}**: {one.get('why', '')}", "", "```", *one.get("lines", []), "```", ""]
        for name, one in mine.items():
            if one["state"] in ("not run", "cut off"):
                lines.append(f"- {one['state']}: {name}: {one['why']}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def shown(content: dict[str, Any]) -> dict[str, Any]:
    """All measurements; those of earlier calls under names of their own, after those of this one."""
    found = dict(content["measurements"])
    return found | {f"{name}{EARLIER}": {**one, "state": "done"} for name, one in content.get("earlier", {}).items()}


def labelled(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a measurement; of an earlier one each says on what it was measured."""
    rows = one.get("rows", [])
    return [{**row, LABEL: one["of"]} for row in rows] if "of" in one else rows


def speeds(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for one in found.values() if one.get("table") == "speed" for row in one.get("rows", [])]


def best(rows: list[dict[str, Any]], whose: str, network: str, batch: int) -> dict[str, Any] | None:
    mine = [row for row in rows if (row["whose"], row["network"], row["batch"]) == (whose, network, batch)]
    return max(mine, key=lambda row: row["images/s"], default=None)


def aims(found: dict[str, Any]) -> list[str]:
    """The aims on an H100 or H200, and what was measured."""
    rows = speeds(found)

    def line(aim: str, number: float | None, reached: bool | None) -> str:
        return f"| {aim} | {'–' if number is None else value(number)} | {'–' if reached is None else value(reached)} |"

    lines = ["| aim on an H100 or H200 | measured | reached |", "| --- | --- | --- |"]
    at_64, at_1 = best(rows, "ours", "thesis", 64), best(rows, "ours", "thesis", 1)
    for least in (2500, 4600):
        number = at_64["images/s"] if at_64 else None
        lines.append(line(f"thesis, batch 64: at least {least} images/s", number, None if number is None else number >= least))
    number = at_1["images/s"] if at_1 else None
    lines.append(line("thesis, batch 1: at least 600 images/s", number, None if number is None else number >= 600))
    minutes = IMAGES / at_64["images/s"] / 60 if at_64 else None
    lines.append(line("3 million images in under 20 minutes", minutes, None if minutes is None else minutes < 20))
    waits = [row["share of the step"] for one in found.values() for row in one.get("rows", []) if "share of the step" in row]
    worst = max(waits) if waits else None
    lines.append(line("data wait under 1 % (the worst of disk, node, device)", worst, None if worst is None else worst < 0.01))
    pairs = [
        (ours["images/s"], theirs["images/s"])
        for network, batch in dict.fromkeys((row["network"], row["batch"]) for row in rows)
        if (ours := best(rows, "ours", network, batch)) and (theirs := best(rows, "plain", network, batch))
    ]
    behind = min((ours / theirs for ours, theirs in pairs), default=None)
    lines.append(line("ahead of the plain program in every row (least ratio)", behind, None if behind is None else behind > 1))
    return lines

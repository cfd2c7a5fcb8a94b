"""What earlier calls measured: kept where the conditions are the same, else shown beside the new, with card and code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONDITIONS = ("device", "kind", "versions", "code")


def read(path: Path) -> dict[str, Any]:
    """The content of a gpu.json.

    Raises:
        ValueError: there is none, or it is not one.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read as JSON: {error}") from None
    if not isinstance(content, dict) or not {"about", "measurements"} <= content.keys():
        raise ValueError(f"{path}: is no report of this command")
    return content


def or_nothing(path: Path) -> dict[str, Any]:
    """The same, or nothing where there is none."""
    try:
        return read(path)
    except ValueError:
        return {}


def conditions(about: dict[str, Any]) -> list[Any]:
    return [about.get(name) for name in CONDITIONS]


def in_short(about: dict[str, Any]) -> str:
    """Card, code and day of a measurement.

    >>> in_short({"device": "NVIDIA H200", "code": "c6c842fcfa27", "written": "2026-11-27 03:04:50 UTC"})
    'NVIDIA H200, code c6c842fcfa27, 2026-11-27'
    """
    return f"{about['device']}, code {about.get('code', 'unknown')}, {about.get('written', 'unknown')[:10]}"


def under(before: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """The content to begin with under the conditions `about`: what is done under the same ones, the rest as earlier."""
    done = {name: one for name, one in before.get("measurements", {}).items() if one["state"] == "done"}
    earlier = dict(before.get("earlier", {}))
    if conditions(before.get("about", {})) != conditions(about):
        for name, one in before.get("measurements", {}).items():
            if one.get("rows"):
                earlier[name] = {**one, "of": in_short(before["about"]), "device": before["about"]["device"]}
        done = {}
    content = {"schema": 1, "about": about, "measurements": done, "earlier": earlier}
    return content | ({"notes": before["notes"]} if before.get("notes") else {})


def forget(content: dict[str, Any]) -> None:
    """Leave out what was measured earlier on the same device and is measured now."""
    now = {name for name, one in content["measurements"].items() if one["state"] == "done"}
    device, earlier = content["about"]["device"], content["earlier"]
    content["earlier"] = {name: one for name, one in earlier.items() if name not in now or one["device"] != device}


def added(content: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both together, under the conditions of `other`. What is done counts before what is not."""
    together = under(content, other["about"])
    if conditions(content.get("about", {})) == conditions(other["about"]):
        together["measurements"] = dict(content["measurements"])  # with what failed
    found = together["measurements"]
    for name, one in other["measurements"].items():
        if one["state"] == "done" or found.get(name, {}).get("state") != "done":
            found[name] = one
    together["earlier"] = {**other.get("earlier", {}), **together["earlier"]}
    forget(together)
    return together

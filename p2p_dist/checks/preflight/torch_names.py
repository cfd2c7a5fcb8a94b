"""Which names of torch this package uses, read from its code, and which of them an installed torch does not have.

A cluster brings its own torch, built for its GPUs, and often an older one. A name that it lacks should be found before a
job waits in a queue for it. Methods of tensors are not found this way: code does not say what is a tensor.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[2]


def used(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Every dotted name under torch in the code of `package`, with the keywords that it is called with anywhere.

    >>> sorted(used()["torch.optim.Adam"])
    ['betas', 'eps', 'fused', 'lr']
    """
    names: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        _collect(ast.parse(path.read_text(encoding="utf-8")), names)
    return names


def _collect(tree: ast.Module, names: dict[str, set[str]]) -> None:
    known: dict[str, str] = {}  # name in this file -> dotted name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    known[alias.asname or "torch"] = alias.name if alias.asname else "torch"
                    names.setdefault(alias.name, set())
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch" and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                names.setdefault(f"{node.module}.{alias.name}", set())

    def dotted(node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return known.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
            return f"{owner}.{node.attr}"
        return None

    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner and (name := dotted(node)):
            names.setdefault(name, set())
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            names.setdefault(name, set()).update(word.arg for word in node.keywords if word.arg)


def missing(names: dict[str, set[str]]) -> list[str]:
    """Those of `names` that the installed torch does not have, and keywords that its functions do not take.

    Keywords are checked where the function tells its signature: those written in C++ do not.
    """
    absent = []
    for name, keywords in sorted(names.items()):
        try:
            found = _resolve(name)
        except (ImportError, AttributeError) as error:
            # A module of torch that wraps a package which is not installed is there all the same.
            if not (isinstance(error, ModuleNotFoundError) and (error.name or "torch").split(".")[0] != "torch"):
                absent.append(name)
            continue
        try:
            parameters = inspect.signature(found).parameters
        except (TypeError, ValueError):
            continue
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        absent += [f"{name}({word}=)" for word in sorted(keywords - set(parameters))]
    return absent


def _resolve(name: str) -> Any:
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:position]))
        found = getattr(found, part)
    return found

"""What is made once for all files of tests that one process runs, and only read by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_made: dict[str, Any] = {}


def once(name: str, make: Callable[[], Any]) -> Any:
    """What `make` returned when it was first asked for by this name: a fixture that several files import is made by each."""
    if name not in _made:
        _made[name] = make()
    return _made[name]

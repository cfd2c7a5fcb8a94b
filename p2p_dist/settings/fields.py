"""What a field of the settings can be: science or resource, there from the start or added later, greater than 0."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any


def resource(default: Any) -> Any:
    """A field that says where and how fast, not what: it may change from one start of a run to the next."""
    return field(default=default, metadata={"resource": True})


def added(default: Any, implied: Any) -> Any:
    """A science field that older runs and shards lack.

    Args:
        implied: what the code of their time did. At this value the field changes no digest and no name, so that what older
            versions made stays what it is; a saved run without the field has this value.
    """
    return field(default=default, metadata={"implied": implied})


def check_positive(owner: Any, *names: str) -> None:
    """Make sure that fields are greater than 0 and finite.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        if not 0 < getattr(owner, name) < math.inf:
            raise ValueError(f"{name.replace('_', '-')} must be greater than 0 and finite, not {getattr(owner, name)}")

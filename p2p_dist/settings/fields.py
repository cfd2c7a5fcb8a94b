"""Kinds of settings fields: science or resource, original or added later."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def resource(default: Any) -> Any:
    """Declare a field for resources, not science: it may change from one start of a run to the next."""
    return field(default=default, metadata={"resource": True})


def added(default: Any, implied: Any) -> Any:
    """Declare a science field that older runs and shards lack.

    Args:
        implied: what the code of their time did. At this value the field changes no digest and no name, so that what older
            versions made stays what it is; a saved run without the field has this value.
    """
    return field(default=default, metadata={"implied": implied})

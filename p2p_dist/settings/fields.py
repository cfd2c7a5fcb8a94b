"""What a field of the settings can be: science or resource, there from the start or added later."""

from __future__ import annotations

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

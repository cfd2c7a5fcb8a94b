"""Kinds of settings fields: science or resource, original or added later."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import tyro

SAYS_DEFAULT = tyro.conf.arg(help_behavior_hint="")
"""Marks a field whose help text states the default, so that the command line does not append "(default: None)"."""


def resource(default: Any) -> Any:
    """Declare a resource field, not a science field: it may change from one start of a run to the next."""
    return field(default=default, metadata={"resource": True})


def added(default: Any, implied: Any) -> Any:
    """Declare a science field that records of earlier versions do not have.

    Args:
        implied: the value that describes what earlier versions did. A record without the field has this value. With this value
            the field changes no digest and no name, so runs and datasets of earlier versions stay valid.
    """
    return field(default=default, metadata={"implied": implied})

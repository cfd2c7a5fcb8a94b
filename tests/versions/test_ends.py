"""Each end of what pyproject.toml allows is a version that the suite ran with: `make test-versions` makes both environments."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).resolve().parents[2]
WHOLE = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PROJECT = WHOLE["project"]

END = os.environ.get("P2P_VERSIONS")
"""Which of the two environments this is: oldest, newest, or neither."""


def requirements(*but: str) -> list[Requirement]:
    """All that is asked for, without the package itself and these extras."""
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name not in but for line in lines]
    found = [Requirement(line) for line in (*WHOLE["build-system"]["requires"], *PROJECT["dependencies"], *extras)]
    return [one for one in found if one.name != PROJECT["name"]]


def ends(requirement: Requirement) -> tuple[str, str]:
    """The oldest and the newest version that it allows, which it names both."""
    bounds = {bound.operator: bound.version for bound in requirement.specifier}
    if "==" in bounds:  # a tool of ours alone, which runs with the locked version
        bounds = {">=": bounds["=="], "<=": bounds["=="]}
    assert bounds.keys() == {">=", "<="}, f"{requirement}: give the oldest and the newest version that was tried, as >= and <="
    return bounds[">="], bounds["<="]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda one: one.name)
def test_both_ends_are_named_and_the_locked_version_lies_between(requirement):
    oldest, newest = ends(requirement)
    assert Version(oldest) <= Version(newest)
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if "==" in line]
    locked = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    if requirement.name != "setuptools":  # which builds the package and is not installed with it
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


if END is not None:  # in the environments of make test-versions

    @pytest.mark.parametrize("requirement", requirements("dev"), ids=lambda one: one.name)
    def test_this_environment_has_the_end(requirement):
        wanted = Version(ends(requirement)[END == "newest"])
        assert Version(Version(importlib.metadata.version(requirement.name)).public) == wanted

    def test_this_python_is_the_end():
        allowed, (major, minor) = SpecifierSet(PROJECT["requires-python"]), sys.version_info[:2]
        beyond = minor - 1 if END == "oldest" else minor + 1
        assert f"{major}.{minor}" in allowed and f"{major}.{beyond}" not in allowed

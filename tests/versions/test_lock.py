"""uv.lock holds the tested versions, from the public index alone; constraints.txt, for pip, says the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = CHECKOUT / "uv.lock"
LOCKED = tomllib.loads(LOCK.read_text())["package"]
PUBLIC = re.compile(r"https://(pypi\.org/simple|files\.pythonhosted\.org/packages/\S+)")


def test_constraints_have_the_versions_of_the_lock():
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    locked = sorted(f"{one['name']}=={one['version']}" for one in LOCKED if one["source"] != {"editable": "."})
    assert sorted(lines) == locked, "make lock makes constraints.txt from uv.lock"


def test_the_lock_has_one_version_of_each_package():
    names = [one["name"] for one in LOCKED]
    assert len(names) == len(set(names)) and "p2p-dist" in names


def test_the_lock_names_no_index_and_no_file_of_one_machine():
    others = [
        one["name"] for one in LOCKED if one["source"] not in ({"editable": "."}, {"registry": "https://pypi.org/simple"})
    ]
    assert others == []
    files = [file for one in LOCKED for file in [*one.get("wheels", []), *([one["sdist"]] if "sdist" in one else [])]]
    assert all(PUBLIC.fullmatch(file["url"]) and file["hash"].startswith("sha256:") for file in files)
    addresses = re.findall(r"(?:[a-z]+:)?//[^\s\"]+", LOCK.read_text())
    assert len(addresses) > len(files) and all(PUBLIC.fullmatch(one) for one in addresses)

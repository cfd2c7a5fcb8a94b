"""Add packages to an image without changing its own. Run it with the image's Python.

python requirements.py FOLDER               write needed.txt and image.txt for pip, from pyproject.toml and constraints.txt
python requirements.py FOLDER --unchanged   fail if a package of the image has another version than in image.txt
"""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path


def plain(name):
    """Normalise the name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed():
    """Map the names of the packages of this Python -> versions."""
    return {plain(one.metadata["Name"]): one.version for one in importlib.metadata.distributions() if one.metadata["Name"]}


def write(folder):
    """Write needed.txt (requirements) and image.txt (constraints: versions of the image, tested versions of other packages)."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    more = project["optional-dependencies"]
    needed = [*project["dependencies"], *more["run"], *more["tensorboard"]]
    there = installed()
    tested = [line for line in (folder / "constraints.txt").read_text().splitlines() if "==" in line]
    fixed = [f"{name}=={version}" for name, version in sorted(there.items())]
    rest = [line for line in tested if plain(line.split("==")[0]) not in there]
    (folder / "needed.txt").write_text("\n".join([*needed, ""]))
    (folder / "image.txt").write_text("\n".join([*fixed, "# tested", *rest, ""]))


def changed(folder):
    """Return the packages that were in the image before and are now missing or have another version."""
    before = (folder / "image.txt").read_text().split("# tested")[0].split()
    now = installed()
    return [line for line in before if now.get(line.split("==")[0]) != line.split("==")[1]]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if "--unchanged" not in sys.argv:
        write(folder)
    elif found := changed(folder):
        sys.exit(f"error: packages of the image were changed or removed: {', '.join(found)}")

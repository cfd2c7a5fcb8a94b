"""What an image needs for jobs, and what it must keep: run by the image's own Python while something is added to it.

python requirements.py FOLDER               writes needed.txt and image.txt, for pip, from pyproject.toml and constraints.txt
python requirements.py FOLDER --unchanged   fails when a package that image.txt fixes is another now
"""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path


def plain(name):
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed():
    """Packages of this Python: name -> version."""
    return {plain(one.metadata["Name"]): one.version for one in importlib.metadata.distributions() if one.metadata["Name"]}


def write(folder):
    """What the image has is fixed at its version; what it has not, at the version that was tested."""
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
    """What was in the image before, and is not any more or in another version."""
    before = (folder / "image.txt").read_text().split("# tested")[0].split()
    now = installed()
    return [line for line in before if now.get(line.split("==")[0]) != line.split("==")[1]]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if "--unchanged" not in sys.argv:
        write(folder)
    elif found := changed(folder):
        sys.exit(f"error: the image had {', '.join(found)}, and has not any more")

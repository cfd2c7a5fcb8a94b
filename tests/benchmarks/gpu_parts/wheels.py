"""Packages for a machine without a network: fetched here as wheels, unpacked there into a folder of the path.

python tests/benchmarks/gpu_parts/wheels.py [--python 3.12]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path

FOLDER = ".wheels"
"""Ignored by git."""

MOST = 50e6
"""Bytes of all wheels together: they travel with every call."""

WANTED = Path(__file__).with_name("wheels.txt")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def fits(wheel: str, version: tuple[int, int]) -> bool:
    """Whether a wheel's name says that it is for this Python.

    >>> fits("av-18.1.0-cp311-abi3-manylinux_2_28_x86_64.whl", (3, 12)), fits("cffi-2.1-cp312-cp312-linux.whl", (3, 11))
    (True, False)
    """
    python, abi = wheel.removesuffix(".whl").split("-")[-3:-1]
    tags = python.split(".")
    if any(tag in ("py3", f"py{version[0]}{version[1]}") for tag in tags):
        return True
    numbers = [int(match[1]) for tag in tags if (match := re.fullmatch(r"cp3(\d+)", tag))]
    return any(number == version[1] or (abi == "abi3" and number <= version[1]) for number in numbers)


def unpack(folder: Path, target: Path) -> list[str]:
    """Unpack what this Python does not have already; the names of what was unpacked."""
    names = []
    for wheel in sorted(folder.glob("*.whl")) if folder.is_dir() else []:
        name = wheel.name.split("-")[0].replace("_", "-").lower()
        if not fits(wheel.name, sys.version_info[:2]):
            continue
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            names.append(name)
    return names


def python_with(packages: Path, folder: Path) -> str:
    """A Python that has all that this one has, and these packages too: also in what it starts, whatever PYTHONPATH says there.

    Raises:
        CalledProcessError, OSError: this Python can't make another.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    ours = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (target,) = folder.glob("lib/python3*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]
    (target / "more.pth").write_text("\n".join([*lines, str(packages)]) + "\n")
    return str(folder / "bin" / "python")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="version of the Python that will use them")
    parser.add_argument("--folder", type=Path, default=Path(FOLDER))
    asked = parser.parse_args()
    for old in asked.folder.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", asked.python, "--implementation", "cp", "--dest", str(asked.folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    if code := subprocess.run([*command, "--requirement", str(WANTED)]).returncode:
        return code
    sizes = {path.name: path.stat().st_size for path in sorted(asked.folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size / 1e6:6.1f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:6.1f} MB  in all, in {asked.folder}")
    if sum(sizes.values()) > MOST:
        print(f"error: that is more than {MOST / 1e6:.0f} MB: take something out of {WANTED}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

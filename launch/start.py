"""Start a command of p2p_dist from a checkout, installed or not. Also runs with the old Python of a login node."""

import importlib.util
import sys
from pathlib import Path

INSTALL = (
    "'make install' makes an environment with all packages (.venv), or: python -m pip install -c constraints.txt -e .[run]"
)


def command(name):
    """Run the command of p2p_dist with this name and the arguments of this process."""
    if sys.version_info < (3, 11):
        found = "{}.{}".format(*sys.version_info[:2])
        refuse(
            "p2p_dist needs Python 3.11 or newer, this is "
            + found
            + ": load a module with a newer one (on LUMI: module load cray-python), or name it: python3.11 launch/..."
        )
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # Some commands import these late: report a missing package before they start.
    for package in ("tyro", "yaml", "rich", "submitit"):
        if importlib.util.find_spec(package) is None:
            refuse("the package {} is missing in {}; {}".format(package, sys.executable, INSTALL))
    from p2p_dist import cli

    cli.run(name, sys.argv[1:])


def refuse(why):
    """Print the reason and exit with code 2."""
    sys.stderr.write("error: " + why + "\n")
    sys.exit(2)

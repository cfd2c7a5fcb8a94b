"""Start a command of p2p_dist from a checkout, installed or not. Plain enough for the oldest python of a login node."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path


def command(module):
    """Import `module` and run its `main(arguments) -> exit code`."""
    if sys.version_info < (3, 11):
        found = "{}.{}".format(*sys.version_info[:2])
        sys.stderr.write(
            "error: p2p_dist needs Python 3.11 or newer, this is "
            + found
            + ": load a module with a newer one (on LUMI: module load cray-python), or name it: python3.11 launch/...\n"
        )
        sys.exit(2)
    os.umask(os.umask(0o022) | 0o022)  # what a run writes decides what is run next: no other may write it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # What these import only when they need it: better said before they begin anything.
    needed = ("tyro", "yaml", "rich", "submitit") if module.rsplit(".", 1)[1] in ("submit", "status", "cancel", "check") else ()
    for name in needed:
        if importlib.util.find_spec(name) is None:
            refuse(name)
    try:
        main = importlib.import_module(module).main
        from p2p_dist.common.console import exit_with
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("p2p_dist"):
            raise
        refuse(error.name)
    except KeyboardInterrupt:
        sys.stderr.write("stopped before anything was begun\n")
        sys.exit(130)
    exit_with(lambda: main(sys.argv[1:]))


def refuse(package):
    """Say that a package is missing, and leave."""
    sys.stderr.write(
        "error: the package {} is missing: 'make install' makes an environment with all of them (.venv), "
        "or: python -m pip install -c constraints.txt -e .\n".format(package)
    )
    sys.exit(2)

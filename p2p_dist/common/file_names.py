"""Check that names of files can be read: as UTF-8, with the letters that the locale has."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def check_utf8(path: Path) -> None:
    """Check that a name can be stored and shown, for files whose names are stored.

    Raises:
        ValueError: it is not UTF-8, or see `check_locale`.
    """
    check_locale(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        cure = "rename it (convmv renames whole folders)"
        raise ValueError(f"the file name {os.fsencode(path.name)!r} in {path.parent} is not UTF-8: {cure}") from None


def check_encodes(text: str) -> None:
    """Check that an argument or variable can be stored in the settings of a run.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{os.fsencode(text)!r} is not UTF-8, so it can't be stored: rename the file or folder") from None


def check_locale(name: str | Path) -> None:
    """Check that Python reads a name of a file as the letters that it has, also where the locale knows only some.

    A name that is not UTF-8 passes: Python keeps its bytes, and no locale helps.

    Raises:
        ValueError: it has letters that the locale lacks or reads as others; the message says which variables to set.
    """
    text = os.fspath(name)
    try:
        read = os.fsencode(text).decode()
        if read == text:
            return
        text = read
    except UnicodeDecodeError:
        return
    except UnicodeEncodeError:  # read from a file of settings, not from a folder or the command line
        pass
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "C"
    raise ValueError(
        f"the file name {text!r} has letters that the locale {locale!r} ({sys.getfilesystemencoding()}) lacks: "
        "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
    )

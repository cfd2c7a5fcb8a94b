"""Send a finished dataset to an address: a folder, a URL, or a command (`pipe:`) for each file."""

from __future__ import annotations

import contextlib
import errno
import http.client
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from p2p_dist.common import console, files
from p2p_dist.data import manifest, remote, transfer
from p2p_dist.settings.address import of_file, scheme

CARDS = ("DATASET.md", "README.md")


def upload(folder: Path, address: str, on_file: Callable[[int, int, str], None] = lambda *_: None) -> None:
    """Send a finished dataset to an address, its manifest last: so what has a manifest there is whole.

    Args:
        on_file: called after each file with files done, files in all, and its name.

    Raises:
        FileNotFoundError, ValueError: the dataset is not finished, or damaged: checked before its manifest is sent.
        OSError: a file could not be sent.
    """
    content = manifest.read(folder)
    parts = content["splits"].values()
    entries = list(
        {one["name"]: one for part in parts for kind in ("shards", "audio") for one in transfer.of_part(part, kind)}.values()
    )
    cards = [name for name in CARDS if (folder / name).is_file()]
    names = [*(entry["name"] for entry in entries), *cards, manifest.NAME]
    for entry in entries:
        if not transfer.is_whole(folder / entry["name"], entry):
            raise ValueError(f"{folder / entry['name']} is missing or differs from its manifest: {manifest.ANEW}")
    for number, name in enumerate(names, 1):
        path = folder / name
        with path.open("rb") as source:
            send(address, name, source, path.stat().st_size)
        on_file(number, len(names), name)


def send(address: str, name: str, source: BinaryIO, size: int) -> None:
    """Send a file of so many bytes to an address, once.

    Raises:
        OSError: it was not taken whole.
    """
    shown, kind = of_file(address, name), scheme(address)
    if (path := remote.path_of(shown)) is not None:
        with files.replacing(path) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, remote.BLOCK)
    elif kind in ("http", "https"):
        request = remote.request_of(shown, "PUT")
        request.data = source
        request.add_header("Content-Length", str(size))
        try:
            with urllib.request.urlopen(request, timeout=remote.TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(errno.EIO, f"the server answers {error.code} ({error.reason})", shown) from None
        except (http.client.InvalidURL, UnicodeError):  # as in `remote.fetch`
            raise OSError(errno.EINVAL, "not a URL", shown) from None
        except (OSError, http.client.HTTPException) as error:
            raise OSError(errno.EIO, remote.in_words(error), shown) from error
    else:
        target = remote.opened(shown, "wb")
        try:
            with contextlib.suppress(BrokenPipeError):  # the command ended: its exit code says how
                shutil.copyfileobj(source, target.stream, remote.BLOCK)
                target.stream.close()
            while (code := _ended(target.proc)) is None:  # the rest of the way takes it as long as it takes
                console.say(f"note: all of {name} was passed to the command; waiting for the command to end")
            if code != 0:
                raise OSError(errno.EIO, f"the command ended with {code}", shown)
        finally:
            target.proc.kill()
            target.proc.wait()


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a process; None if it has not ended within `remote.TIMEOUT`."""
    try:
        return process.wait(remote.TIMEOUT)
    except subprocess.TimeoutExpired:
        return None

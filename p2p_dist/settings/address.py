"""The address of a dataset elsewhere: a folder, a URL, or a command for each file (`pipe:`). It never holds a secret."""

from __future__ import annotations

import re
import shlex

from p2p_dist.common import console, secrets

NAME = "{name}"
"""What stands in an address for the name of a file."""

SCHEMES = ("http", "https", "file", "ais", "ftps", "gs", "hf", "htgs", "scp", "sftp")
"""URLs that are opened: http and https here, all others by webdataset, which a login node may not have."""

_VARIABLE = re.compile(r"\$(?:\{\w+\}|\w+)")
_LOGIN = re.compile(r"(?<=://)[^/\s@:'\"]+(?::\*\*\*)?(?=@)")
_OPTION = re.compile(r"(?:^|\s)(?:-u|--user)[ =]?[\"']?[^\s:*]+:(?!\*\*\*)\S")


def scheme(address: str) -> str | None:
    """Return `https` of `https://host/set`, `pipe` of a command; None for a folder."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://|(pipe):", address)
    return None if found is None else (found[1] or found[2]).lower()


def of_file(address: str, name: str) -> str:
    """Return the address of a file of a dataset."""
    if scheme(address) == "pipe":
        name = shlex.quote(name)
    return address.replace(NAME, name) if NAME in address else f"{address.rstrip('/')}/{name}"


def acts_here(address: str) -> bool:
    """Whether opening an address runs a command or sends values of the user's environment: then no one else may have set it."""
    kind = scheme(address)
    return kind == "pipe" or (kind is not None and _VARIABLE.search(address) is not None)


def has_secret(address: str) -> bool:
    """Whether a text has what looks like a password, token or signature. `$NAME`, a variable of the environment, is none."""
    text = _VARIABLE.sub(secrets.MASK, address)
    if _OPTION.search(text):
        return True
    # A name before the @ is no secret, but some services take a token there.
    text = _LOGIN.sub(lambda login: login[0] if secrets.mask(login[0]) != login[0] else secrets.MASK, text)
    return secrets.mask(text) != text


def check_address(address: str, option: str) -> None:
    """Check that an address can be opened and may be written down.

    Args:
        option: how it was given, for messages.

    Raises:
        ValueError: it can't, or it contains a secret, which the message does not repeat.
    """
    kind = scheme(address)
    if has_secret(address):
        raise ValueError(
            f"{option} contains a password, token or signature, and settings are written into the records of a run: put it "
            "into an environment variable and write $NAME in its place, in single quotes; or into the program's own settings"
        )
    if not address.strip() or (bad := console.control_character(address)):
        raise ValueError(
            f"{option} is empty" if not address.strip() else f"{option} has a control character ({bad}): remove it"
        )
    if kind == "pipe" and NAME not in address:
        raise ValueError(
            f"{option}: the command needs {NAME} where the name of a file belongs, as pipe:rclone cat store:set/{NAME}"
        )
    if kind not in (None, "pipe", *SCHEMES):
        rclone, aws = ("rcat", f"- s3://BUCKET/SET/{NAME}") if option == "--upload" else ("cat", f"s3://BUCKET/SET/{NAME} -")
        raise ValueError(
            f"{option}: nothing here opens {kind}:// addresses: use https://, or name a command for each file, as "
            f"'pipe:rclone {rclone} STORE:SET/{NAME}' or 'pipe:aws s3 cp {aws}'"
        )
    if kind in ("http", "https") and re.match(r"[a-z]+:///", address, re.IGNORECASE):
        raise ValueError(f"{option} names no host: write {kind}://HOST/PATH")
    if kind not in (None, "pipe") and (odd := re.search(r"[\s'\"\\<>`|]", address)):
        raise ValueError(f"{option} has {odd[0]!r}, which no URL has: write it as %{ord(odd[0]):02X}")

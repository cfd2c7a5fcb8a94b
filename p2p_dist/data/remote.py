"""Fetch single files of a dataset at an address: a folder, a URL, or a command (`pipe:`) for each file.

HTTP is read here, because a lost connection can then go on where it ended; all else is opened by `webdataset.gopen`. The names
of files come from a manifest, whose shape allows only plain names. Messages show an address as it was given, never with the
values of the environment's variables in it.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import io
import os
import re
import select
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from p2p_dist.common import console, files
from p2p_dist.settings.address import of_file, scheme

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost, and a command as hung."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before further attempts, each after one that received nothing new, seconds."""

MOST = 1 << 30
"""Bytes of the largest manifest that is read."""

BLOCK = 1 << 18
"""Bytes that are read at once."""

_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
"""Errors for an unreachable host."""

_FOR_A_MOMENT = (408, 425, 429, 500, 502, 503, 504)
"""Answers of HTTP after which the same request may succeed."""

_NO_MORE = 416
"""The answer of HTTP to a request for what comes after the last byte of a file."""


class _RefusedError(OSError):
    """An answer that another attempt would not change."""


class _Arrived:
    """What has arrived of a file: where it is written, its bytes, its sha256, and the version that the server named."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file, self.most, self.version = file, most, ""
        self.begin_again()

    def begin_again(self) -> None:
        """Forget what has arrived."""
        self.file.seek(0)
        self.file.truncate()
        self.bytes, self.sha256 = 0, hashlib.sha256()

    def add(self, block: bytes) -> None:
        """Write what has arrived, up to one byte more than there should be."""
        self.file.write(block)
        self.sha256.update(block)
        self.bytes += len(block)


def fetch(address: str, entry: Mapping[str, Any], target: Path) -> None:
    """Fetch a file of a dataset to `target`: whole and as its manifest says, or not at all.

    Args:
        entry: what the manifest says of it: name, bytes, sha256.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it could not be fetched, or not be written; the message says how often that was tried, or what is needed.
        DamagedError: what is there differs from the manifest.
    """
    try:
        with files.replacing(target) as temporary, temporary.open("wb") as file:
            _fetch(address, entry["name"], _Arrived(file, entry["bytes"]), entry["sha256"])
    except OSError as error:
        if error.errno in files.FULL:
            said = f"{os.strerror(error.errno)} while {entry['name']}, {console.size(entry['bytes'])}, was fetched"
            raise OSError(error.errno, said, str(target.parent)) from error
        raise


def fetch_manifest(address: str, name: str, pauses: Sequence[float] | None = None) -> bytes:
    """Fetch the manifest of a dataset, which nothing tells the size of.

    Args:
        pauses: as `PAUSES`, which are used without.

    Raises:
        FileNotFoundError, OSError: see `fetch`.
        ValueError: it is far too large for a manifest.
    """
    memory = io.BytesIO()
    _fetch(address, name, _Arrived(memory, MOST), None, pauses)
    return memory.getvalue()


def _fetch(address: str, name: str, arrived: _Arrived, sha256: str | None, all_pauses: Sequence[float] | None = None) -> None:
    """Fetch a file, going on or beginning again after errors that may pass.

    Args:
        sha256: what it should be, of `arrived.most` bytes; None: any, of at most so many.
    """
    all_pauses = PAUSES if all_pauses is None else all_pauses
    where, most, pauses, tried, wrong = of_file(address, name), 0, iter(all_pauses), 0, 0
    while True:
        tried += 1
        try:
            _receive(address, name, arrived)
            if sha256 is None and arrived.bytes <= arrived.most:
                return
            if arrived.bytes < arrived.most:
                raise OSError(errno.ENODATA, f"it ended after {arrived.bytes} of {arrived.most} bytes")
            if arrived.bytes == arrived.most and arrived.sha256.hexdigest() == sha256:
                return
        except (_RefusedError, FileNotFoundError):
            raise
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in files.FULL:
                raise
            if arrived.bytes > most:
                most, pauses = arrived.bytes, iter(all_pauses)
            if (pause := next(pauses, None)) is None:
                raise OSError(
                    errno.EIO,
                    f"{in_words(error)}, tried {'once' if tried == 1 else f'{tried} times'}; {_way_out(error, where)}",
                    where,
                ) from error
            console.say(f"note: {in_words(error)}, trying again: {where}")
            time.sleep(pause)
            continue
        wrong += 1  # read wrong once, or while it was replaced, it may be right now
        if wrong == 2 or sha256 is None:
            what = "sha256" if arrived.bytes == arrived.most else f"more than {arrived.most} bytes"
            raise files.DamagedError(
                f"{where} differs from its manifest ({what}): it was changed or damaged after the manifest was written; "
                + make_again(address)
            )
        arrived.begin_again()


def make_again(address: str) -> str:
    """What to do where a file is not the one of the manifest beside it."""
    is_folder = scheme(address) is None
    return "preprocess it again, or copy it again from an intact source" if is_folder else "upload the whole dataset again"


def in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"no answer for {TIMEOUT:g} seconds"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        error = error.reason
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _way_out(error: Exception, where: str) -> str:
    """What to do; this machine may have no way to the server, as compute nodes often have none."""
    if getattr(error, "errno", None) == errno.ENODATA:
        return make_again(where)
    reason = getattr(error, "reason", None)  # of a `URLError`: there was no connection
    proxy = f"{scheme(where)}_proxy"
    host = urllib.parse.urlsplit(where).netloc.rpartition("@")[2]
    has_proxy = scheme(where) in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
    by_proxy = reason is not None and has_proxy
    no_way = isinstance(reason, socket.gaierror | TimeoutError) or getattr(reason, "errno", None) in _NO_WAY
    if not (by_proxy or no_way):
        return f"check that {socket.gethostname()} can read this address"
    to_proxy = f"correct the proxy in ${proxy}" if by_proxy else f"set {proxy} to the proxy of the cluster"
    return (
        f"if {socket.gethostname()} has no internet access, copy the dataset to a folder that it can read and use "
        f"--data.shards FOLDER, or {to_proxy}"
    )


def _receive(address: str, name: str, arrived: _Arrived) -> None:
    """Receive a file once, as far as it comes."""
    kind = scheme(address)
    if kind in ("http", "https"):
        _receive_http(of_file(address, name), arrived)
        return
    arrived.begin_again()
    shown = of_file(address, name)
    path = path_of(shown)
    with contextlib.closing(_of_gopen(shown) if path is None else _of_folder(path)) as blocks:
        for block in blocks:
            arrived.add(block)
            if arrived.bytes > arrived.most:
                return


def _receive_http(shown: str, arrived: _Arrived) -> None:
    """Receive a file over HTTP, from where the last connection ended if the server has the same version (RFC 9110, 14)."""
    request = request_of(shown)
    if arrived.bytes and arrived.version:
        request.add_header("Range", f"bytes={arrived.bytes}-")
        request.add_header("If-Range", arrived.version)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            said = f"the server answers {error.code} ({error.reason})"
            if error.code in (404, 410):
                raise FileNotFoundError(errno.ENOENT, said, shown) from None
            if error.code in (401, 403):
                said += ": no access with what the environment holds"
            if error.code == _NO_MORE and arrived.bytes:
                said = f"it ended after {arrived.bytes} of {arrived.most} bytes"
                arrived.begin_again()
                raise OSError(errno.ENODATA, said) from None
            if error.code in _FOR_A_MOMENT:
                raise OSError(errno.EIO, said) from None
            raise _RefusedError(errno.EIO, said, shown) from None
    except (http.client.InvalidURL, UnicodeError):  # whose text may hold the values of variables
        raise _RefusedError(errno.EINVAL, "not a URL", shown) from None
    with answer:
        begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if answer.status != 206 or begins is None or int(begins[1]) != arrived.bytes:
            arrived.begin_again()
        tag = answer.headers.get("ETag", "")
        arrived.version = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
        length, before = answer.headers.get("Content-Length", ""), arrived.bytes
        while arrived.bytes <= arrived.most and (block := answer.read1(BLOCK)):
            arrived.add(block)
        if length.isdecimal() and arrived.bytes < before + int(length):
            raise OSError(errno.EIO, f"the connection ended after {arrived.bytes} of {before + int(length)} bytes")


def request_of(shown: str, method: str = "GET") -> urllib.request.Request:
    """A request with the values of the variables in an address; a login goes into a header that no other host is sent."""
    whole = _with_variables(shown)
    try:
        parts = urllib.parse.urlsplit(whole)
    except ValueError:  # whose text may hold the values of variables
        raise _RefusedError(errno.EINVAL, "not a URL", shown) from None
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)), method=method)
    request.add_header("User-Agent", "p2p_dist")
    if login:
        name, _, password = login.partition(":")
        pair = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    return request


def _with_variables(address: str) -> str:
    """Replace `$NAME` by what the environment holds.

    Raises:
        ValueError: it holds none of this name.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ValueError(f"{address}: the environment has no variable {name}: export it, then run the command again")
        return os.environ[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, address)


def path_of(shown: str) -> Path | None:
    """Return the path of a file in a folder, or of a URL `file://`; None: it is neither.

    Raises:
        ValueError: the URL names another host.
    """
    kind = scheme(shown)
    if kind == "file":  # to webdataset %20 is no space, and a file that it opened to write no stream
        host, _, path = _with_variables(shown)[len("file://") :].partition("/")
        if host.lower() not in ("", "localhost"):  # RFC 8089, 2
            raise ValueError(f"{shown}: a file:// address names a path of this machine from its root: write file:///PATH")
        return Path(urllib.parse.unquote(f"/{path}"))
    return files.expanded(shown) if kind is None else None


def _of_folder(path: Path) -> Generator[bytes, None, None]:
    with path.open("rb") as source:
        yield from iter(lambda: source.read(BLOCK), b"")


def _of_gopen(shown: str) -> Generator[bytes, None, None]:
    """Yield the blocks of what `webdataset.gopen` opens.

    Raises:
        OSError: it can't be opened, its command ends with an error, or says nothing for `TIMEOUT`.
    """
    source = opened(shown, "rb")
    process = getattr(source, "proc", None)
    if process is None:
        with source:
            yield from iter(lambda: source.read(BLOCK), b"")
        return
    try:
        while select.select([source.stream], [], [], TIMEOUT)[0]:
            if block := os.read(source.stream.fileno(), BLOCK):
                yield block
                continue
            if process.wait(TIMEOUT):
                raise OSError(errno.EIO, f"the command ended with {process.returncode}")
            return
        raise TimeoutError
    except subprocess.TimeoutExpired:  # it ended its output, and goes on
        raise TimeoutError from None
    finally:
        process.kill()
        process.wait()
        source.stream.close()


def opened(shown: str, mode: str) -> Any:
    """Open an address with webdataset. The shell of a command replaces variables by itself."""
    from webdataset.gopen import gopen

    try:
        return gopen(shown if scheme(shown) == "pipe" else _with_variables(shown), mode)
    except (ValueError, NotImplementedError, ImportError) as error:
        cure = (
            f"use https://, or a command for each file, as pipe:rclone {'cat' if mode == 'rb' else 'rcat'} STORE:SET/{{name}}"
        )
        why = f" ({error})" if isinstance(error, ImportError) else ""  # of others the text may hold the values of variables
        raise ValueError(f"{shown}: webdataset cannot open {scheme(shown)}:// addresses here{why}: {cure}") from error
    except FileNotFoundError as error:
        raise _RefusedError(errno.ENOENT, f"opening it needs the program {error.filename}", shown) from error

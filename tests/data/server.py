"""A server on the loopback that serves and takes the files of a folder, and does what servers and networks do wrong."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """Use it in a `with`.

    faults: name of a file -> what its next answers are, each once: a status; `cut N` (the connection ends after N bytes);
        `reset N` (it is reset); `slow` (nothing for a second); `stall` (half of it, then nothing for ten minutes); `flip` (one
        bit is another); `longer` (bytes behind its end).
    names_versions: whether it sends an ETag and takes Range, as object stores do. login: `name:password` that it asks for.
    asked: name and headers of each request.
    """

    def __init__(self, folder: Path, *, names_versions: bool = True, login: str | None = None) -> None:
        self.folder, self.names_versions, self.login = folder, names_versions, login
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_PUT(self) -> None:
                name = self.path.strip("/").partition("?")[0]
                outer.asked.append((name, dict(self.headers)))
                (outer.folder / name).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
                status = outer.faults[name].pop(0) if outer.faults[name] else "201"
                self.send_response(int(status))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        """The address of the folder."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request for a file."""
        name = request.path.strip("/").partition("?")[0]
        self.asked.append((name, dict(request.headers)))
        path = self.folder / name
        fault, _, number = (self.faults[name].pop(0) if self.faults[name] else "").partition(" ")
        if self.login and request.headers.get("Authorization") != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            fault = "401"
        if not path.is_file():
            fault = "404"
        content, begin = path.read_bytes() if path.is_file() else b"", 0
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.names_versions and request.headers.get("If-Range") == tag:
            begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if begin and begin >= len(content):
            fault = "416"
        if fault.isdecimal():
            request.send_response(int(fault))
            if fault == "302":
                request.send_header("Location", number)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        sent = content[begin:]
        if fault == "slow":
            time.sleep(1)
        if fault == "flip":
            sent = sent[:-1] + bytes([sent[-1] ^ 1])
        if fault == "longer":
            sent += b"x" * 1000
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if self.names_versions:
            request.send_header("ETag", tag)
        request.send_header("Content-Length", str(len(sent)))
        request.end_headers()
        if fault in ("cut", "reset"):
            request.wfile.write(sent[: int(number)])
            request.wfile.flush()
            if fault == "reset":
                request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_WR) if fault == "cut" else request.connection.close()
            return
        if fault == "stall":
            request.wfile.write(sent[: len(sent) // 2])
            time.sleep(600)
            return
        request.wfile.write(sent)

"""Single files of a dataset, fetched: from a real server on the loopback, by commands, and from a folder."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2p_dist.common import files
from p2p_dist.data import remote, upload
from tests.data.server import Server

BYTES = np.random.default_rng(0).bytes(700_001)
ENTRY: dict[str, Any] = {"name": "a.tar", "bytes": len(BYTES), "sha256": hashlib.sha256(BYTES).hexdigest()}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three further attempts, at once."""
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with one file, to be served."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a.tar").write_bytes(BYTES)
    return folder


@pytest.fixture
def server(there: Path) -> Iterator[Server]:
    """It, served as an object store does."""
    with Server(there) as server:
        yield server


def fetched(address: str, folder: Path) -> bytes:
    """What is fetched, which has its final name only when it is whole."""
    remote.fetch(address, ENTRY, folder / "a.tar")
    assert [path.name for path in folder.iterdir()] == ["a.tar"]
    return (folder / "a.tar").read_bytes()


@pytest.mark.parametrize("names_versions", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["503"],
        ["500", "429", "502"],
        ["408", "425", "504"],
        ["cut 0", "cut 300000", "cut 1"],
        ["reset 400000"],
        ["flip"],
        ["longer"],
        ["503", "cut 1000", "flip", "503"],
    ],
    ids=str,
)
def test_a_file_arrives_whole_whatever_happens_on_the_way(
    there: Path, tmp_path: Path, faults: list[str], names_versions: bool
) -> None:
    with Server(there, names_versions=names_versions) as server:
        server.faults["a.tar"] = list(faults)
        assert fetched(server.url, tmp_path / "here") == BYTES
        assert server.faults["a.tar"] == [] and len(server.asked) == len(faults) + 1


def test_a_cut_connection_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.faults["a.tar"] = ["cut 300000", "cut 200000"]
    assert fetched(server.url, tmp_path / "here") == BYTES
    assert [headers.get("Range") for _, headers in server.asked] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_file_that_is_too_short_is_said_to_be(server: Server, tmp_path: Path) -> None:
    """A server refuses to send what comes after the end: the end is the message, not the refusal."""
    os.truncate(server.folder / "a.tar", 9)
    with pytest.raises(OSError, match=r"it ended after 9 of 700001 bytes, tried \d times; upload the whole dataset again: "):
        fetched(server.url, tmp_path / "here")
    assert server.asked[1][1]["Range"] == "bytes=9-"


def test_progress_counts_so_that_a_bad_line_is_enough(server: Server, tmp_path: Path) -> None:
    """More cuts than there are pauses."""
    server.faults["a.tar"] = ["cut 60000"] * 10
    assert fetched(server.url, tmp_path / "here") == BYTES


def test_a_file_replaced_between_two_connections_is_read_from_its_beginning(server: Server, tmp_path: Path) -> None:
    """The first half of one file and the second of another would be neither."""
    (server.folder / "a.tar").write_bytes(bytes(len(BYTES)))
    server.faults["a.tar"] = ["cut 300000"]
    arrived = server.answer

    def replaced(request: Any) -> None:
        if server.asked:
            (server.folder / "a.tar").write_bytes(BYTES)
        arrived(request)

    server.answer = replaced  # type: ignore[method-assign]
    assert fetched(server.url, tmp_path / "here") == BYTES
    assert server.asked[1][1]["Range"] == "bytes=300000-", "asked for the rest, and told that it has changed"


@pytest.mark.parametrize(
    ("faults", "kind", "said"),
    [
        (["404"], FileNotFoundError, r"the server answers 404 \(Not Found\)"),
        (["410"], FileNotFoundError, r"the server answers 410 \(Gone\)"),
        (["403"], OSError, "no access with what the environment holds"),
        (["400"], OSError, r"the server answers 400 \(Bad Request\)"),
        (["503"] * 4, OSError, r"the server answers 503 \(Service Unavailable\), tried 4 times"),
        (["cut 5"] * 4, OSError, "the connection ended after 5 of 700001 bytes, tried 4 times"),
        (["flip"] * 2, files.DamagedError, r"differs from its manifest \(sha256\).*upload the whole dataset again"),
        (["longer"] * 2, files.DamagedError, r"differs from its manifest \(more than 700001 bytes\)"),
    ],
)
def test_what_cannot_be_fetched_is_named_and_leaves_nothing(
    there: Path, tmp_path: Path, faults: list[str], kind: type[Exception], said: str
) -> None:
    with Server(there, names_versions=False) as server:
        server.faults["a.tar"] = list(faults)
        with pytest.raises(kind, match=said) as error:
            fetched(server.url, tmp_path / "here")
        assert server.faults["a.tar"] == []
        assert f"{server.url}/a.tar" in (str(error.value), getattr(error.value, "filename", None)) or server.url in str(
            error.value
        )
    assert list((tmp_path / "here").iterdir()) == []


def test_a_slow_answer_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.05)
    server.faults["a.tar"] = ["slow"] * 4
    with pytest.raises(OSError, match=r"no answer for 0\.05 seconds, tried 4 times"):
        fetched(server.url, tmp_path / "here")
    told = f"note: no answer for 0.05 seconds, trying again: {server.url}/a.tar\n"
    assert capsys.readouterr().out == 3 * told, "minutes would go by in silence"
    with pytest.raises(OSError, match=r"no answer for 0\.05 seconds, tried 4 times"):
        fetched("pipe:sleep 1; cat {name}", tmp_path / "here")
    with pytest.raises(OSError, match=r"no answer for 0\.05 seconds, tried 4 times"):
        fetched("pipe:exec >&-; sleep 1 # {name}", tmp_path / "here")


def test_a_server_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    server.__exit__()
    with pytest.raises(OSError, match="Connection refused, tried once; check"):
        remote.fetch_manifest(server.url, "manifest.json", ())
    said = f"Connection refused, tried 4 times; check that {socket.gethostname()} can read this address: "
    with pytest.raises(OSError, match=said):
        fetched(server.url, tmp_path / "here")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known, tried 4 times; if "),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable, tried 4 times; if "),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host, tried 4 times; if "),
        (OSError(errno.ENETDOWN, "Network is down"), "Network is down, tried 4 times; if "),
        (TimeoutError(), "no answer for 60 seconds, tried 4 times; if "),
    ],
    ids=str,
)
def test_a_machine_without_internet_is_told_what_to_do(
    error: OSError, said: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of a compute node is not this machine's to take away: its answers to a connection are given here."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(OSError, match=said) as raised:
        fetched(server.url, tmp_path / "here")
    assert raised.value.filename == f"{server.url}/a.tar" and raised.value.strerror.endswith(
        f"if {socket.gethostname()} has no internet access, copy the dataset to a folder that it can read and use "
        "--data.shards FOLDER, or set http_proxy to the proxy of the cluster"
    )


def test_a_proxy_that_refuses_is_named_by_its_variable(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # which has read the environment
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://me:sesame@127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(OSError, match=r"refused, tried 4 times; if .*or correct the proxy in \$http_proxy: ") as error:
            remote.fetch("http://dataset.invalid", ENTRY, tmp_path / "a.tar")
        assert "sesame" not in str(error.value)
        monkeypatch.setattr(urllib.request, "_opener", None)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        server.__exit__()
        with pytest.raises(OSError, match="Connection refused, tried 4 times; check that "):
            remote.fetch(server.url, ENTRY, tmp_path / "a.tar")


def test_what_a_server_answers_through_a_proxy_is_not_the_fault_of_the_proxy(
    server: Server, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is the proxy here: it is asked for whole addresses."""
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    folder = there / "http:" / "dataset.invalid"
    folder.mkdir(parents=True)
    (there / "a.tar").rename(folder / "a.tar")
    assert fetched("http://dataset.invalid", tmp_path / "here") == BYTES
    server.faults["http://dataset.invalid/a.tar"] = ["503"] * 4
    said = f"the server answers 503 .*, tried 4 times; check that {socket.gethostname()} can read this address: "
    with pytest.raises(OSError, match=said):
        fetched("http://dataset.invalid", tmp_path / "here")


def test_a_full_disk_says_what_is_needed(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: Any, block: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(remote._Arrived, "add", add)
    with pytest.raises(OSError, match=r"No space left on device while a\.tar, 700 kB, was fetched") as error:
        fetched(str(there), tmp_path / "here")
    assert error.value.errno == 28 and list((tmp_path / "here").iterdir()) == []


def test_a_login_is_of_the_environment_and_goes_to_no_other_host(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_WORD", "open sesame/@")
    with Server(there, login="me:open sesame/@") as server, Server(there) as other:
        address = server.url.replace("//", "//me:$OUR_WORD@")
        monkeypatch.setenv("OUR_WORD", "open%20sesame%2F%40")
        assert fetched(address, tmp_path / "here") == BYTES
        server.faults["a.tar"] = [f"302 {other.url}/a.tar"]
        assert fetched(address, tmp_path / "here") == BYTES
        assert "Authorization" not in other.asked[0][1] and "Authorization" in server.asked[-1][1]
        monkeypatch.setenv("OUR_WORD", "wrong")
        with pytest.raises(OSError, match=r"401.*no access with what the environment holds") as error:
            fetched(address, tmp_path / "here")
        assert error.value.filename == f"{address}/a.tar", "the name of the variable, not its value"
        monkeypatch.setenv("OUR_WORD", "a b\x01")
        with pytest.raises(OSError) as error:
            fetched(server.url.replace("127", "$OUR_WORD"), tmp_path / "here")
        assert "\x01" not in str(error.value)
        monkeypatch.delenv("OUR_WORD")
        with pytest.raises(ValueError, match="the environment has no variable OUR_WORD: export it"):
            fetched(address, tmp_path / "here")


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("abc def", "http://127.0.0.1:9/{name}?sig=$OUR_WORD"),
        ("abc\u00e9", "http://127.0.0.1:9/{name}?sig=$OUR_WORD"),
        ("abc\u2100", "http://me:$OUR_WORD@127.0.0.1:9/{name}"),
    ],
)
def test_a_value_that_no_url_can_have_is_not_shown(
    word: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_WORD", word)
    with pytest.raises(OSError, match=r"not a URL.*\$OUR_WORD") as error:
        fetched(address, tmp_path)
    assert "abc" not in str(error.value)
    with pytest.raises(OSError, match=r"not a URL.*\$OUR_WORD") as error:
        upload.send(address, "b.tar", io.BytesIO(b"x"), 1)
    assert "abc" not in str(error.value)


def test_a_signature_is_of_the_environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNATURE", "abc")
    assert fetched(server.url + "/{name}?sig=${SIGNATURE}", tmp_path / "here") == BYTES


def test_a_command_reads_a_file(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", str(there))
    assert fetched("pipe:cat $THERE/{name}", tmp_path / "here") == BYTES
    count = tmp_path / "count"
    once = f"pipe:echo >>{count}; cat $THERE/{{name}}; test $(wc -l <{count}) -gt 2"
    assert fetched(once, tmp_path / "here") == BYTES, "the exit code of a command counts, and it is tried again"
    with pytest.raises(OSError, match="the command ended with 3, tried 4 times") as error:
        fetched("pipe:cat $THERE/{name}; exit 3", tmp_path / "here")
    assert error.value.filename == "pipe:cat $THERE/a.tar; exit 3"
    with pytest.raises(OSError, match=r"it ended after 9 of 700001 bytes, tried \d times"):
        fetched("pipe:head -c 9 $THERE/{name}", tmp_path / "here")
    with pytest.raises(files.DamagedError, match="more than 700001 bytes"):
        fetched("pipe:yes {name}", tmp_path / "here")


def test_a_folder_and_addresses_that_nothing_opens(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetched(str(there), tmp_path / "here") == BYTES
    (tmp_path / "two words").symlink_to(there)
    monkeypatch.setenv("THERE", str(there))
    for address in (f"file://{there}", f"file://{tmp_path}/two%20words", f"file://LocalHost{there}", "file://$THERE"):
        assert fetched(address, tmp_path / "here") == BYTES
    with pytest.raises(ValueError, match=r"^file://data/set/a.tar: a file:// address names a path .*: write file:///PATH$"):
        fetched("file://data/set", tmp_path / "here")
    for gone in (str(there), f"file://{there}"):
        with pytest.raises(FileNotFoundError, match=r"No such file or directory: '/.*/none/a.tar'"):
            fetched(f"{gone}/none", tmp_path / "here")
    os.truncate(there / "a.tar", 9)
    with pytest.raises(OSError, match=r"it ended after 9 of 700001 bytes, tried 4 times; preprocess it again"):
        fetched(str(there), tmp_path / "here")
    with pytest.raises(ValueError, match=r"webdataset cannot open s3:// addresses here: use https://, or a command for each"):
        fetched("s3://bucket/set", tmp_path / "here")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"cannot open hf:// addresses here \(import of huggingface_hub halted.*\): use https"):
        fetched("hf://datasets/me/set", tmp_path / "here")


def test_a_manifest_has_an_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults["a.tar"] = ["cut 1000", "reset 10"]
    assert remote.fetch_manifest(server.url, "a.tar") == BYTES
    monkeypatch.setattr(remote, "MOST", len(BYTES) - 1)
    with pytest.raises(ValueError, match="more than 700000 bytes"):
        remote.fetch_manifest(server.url, "a.tar")
    assert len(server.asked) == 4, "once"

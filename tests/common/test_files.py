"""Files are whole or not there."""

import errno
import json
import os
import re
import socket
from pathlib import Path

import pytest

from p2p_dist.common import files


def test_a_failed_write_leaves_the_old_file_and_no_garbage(tmp_path):
    path = tmp_path / "a b'c.json"
    files.write_json(path, {"value": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"value": float("nan")})
    with pytest.raises(OSError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "full")
    assert json.loads(path.read_text()) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_is_committed_whole_and_never_replaced(tmp_path):
    with files.new_folder(tmp_path / "step") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("first")
    with pytest.raises(OSError), files.new_folder(tmp_path / "step") as folder:
        (folder / "a").write_text("second")
    assert (tmp_path / "step" / "sub" / "a").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["step"]


def test_two_nodes_do_not_share_a_temporary_name(tmp_path, monkeypatch):
    """In containers, every node may have a process of the same number."""
    path = tmp_path / "ranking.json"
    with files.replacing(path) as first:
        first.write_text("first")
        monkeypatch.setattr(socket, "gethostname", lambda: "nid2")
        files.write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    monkeypatch.undo()
    with files.new_folder(tmp_path / "one") as folder:
        (folder / "a").touch()
        monkeypatch.setattr(socket, "gethostname", lambda: "nid2")
        with files.new_folder(tmp_path / "two"):
            pass
        with pytest.raises(KeyError), files.new_folder(tmp_path / "one"):
            raise KeyError
    assert (tmp_path / "one" / "a").is_file()
    assert {p.name for p in tmp_path.iterdir()} == {"ranking.json", "one", "two"}


def test_a_folder_that_failed_half_way_is_not_there(tmp_path):
    with pytest.raises(KeyError), files.new_folder(tmp_path / "step") as folder:
        (folder / "a").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_garbage_of_a_killed_writer_is_removed_and_nothing_else(tmp_path):
    if (child := os.fork()) == 0:
        with files.new_folder(tmp_path / "step") as folder:
            (folder / "a").write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    (tmp_path / "kept").write_text("x")
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_garbage(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_digest_does_not_depend_on_the_order_of_keys_but_on_every_value():
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1})
    assert files.digest({"a": 1, "b": 2}) != files.digest({"a": 1, "b": 3})


def test_a_link_or_copy_replaces_what_was_there(tmp_path):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    files.link_or_copy(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"


def test_an_error_of_a_full_disk_names_what_was_to_be_written(tmp_path):
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "here.json"))) as caught:
        with files.replacing(tmp_path / "here.json"):
            raise OSError(errno.ENOSPC, "No space left on device")  # as write() says it, without a name
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_a_home_is_put_in_only_of_a_user_that_there_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    assert [str(files.expanded(name)) for name in ("~/songs", "~", "a/~")] == ["/home/a/songs", "/home/a", "a/~"]
    assert files.expanded("~no-such-user/songs") == files.expanded(Path("~no-such-user/songs")) == Path("~no-such-user/songs")


def test_an_error_gets_a_name_if_it_has_none(tmp_path):
    for error, said in (
        (OSError(28, "No space left on device"), f"[Errno 28] No space left on device: '{tmp_path}'"),
        (OSError(28, "No space left on device", "a"), "[Errno 28] No space left on device: 'a'"),
        (OSError("of a library"), "of a library"),
    ):
        files.add_name(error, tmp_path)
        assert str(error) == said


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_flush_is_written_to(number, tmp_path, monkeypatch):
    """As some through FUSE. An error of the disk is one."""

    def failing(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", failing)
    files.write_text(tmp_path / "a", "a")
    with files.new_folder(tmp_path / "b") as folder:
        (folder / "c").touch()
    assert (tmp_path / "a").read_text() == "a" and (tmp_path / "b" / "c").is_file()
    number = errno.EIO
    with pytest.raises(OSError, match=r"output error: .*/d'"):
        files.write_text(tmp_path / "d", "d")


def test_a_file_system_that_keeps_no_permissions_is_used_if_it_lets_nobody_write(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.touch(0o600)
    files.set_mode(path, 0o644)
    assert path.stat().st_mode & 0o777 == 0o644

    def refusing(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refusing)
    files.set_mode(path, 0o755)
    os.chmod(path, 0o666)  # noqa: PTH101 - the other one refuses
    with pytest.raises(OSError, match="its file system can't keep other users from writing there: name another folder"):
        files.set_mode(path, 0o644)


def test_a_folder_is_flushed_before_it_gets_its_name_and_its_parent_after(tmp_path, monkeypatch):
    """If it failed: after a power failure there is a checkpoint with a name and without content."""
    flushed = []
    monkeypatch.setattr(files, "_fsync", lambda path: flushed.append(((tmp_path / "step").exists(), path.name)))
    with files.new_folder(tmp_path / "step") as folder:
        (folder / "inner").mkdir()
        (folder / "a").touch()
        (folder / "inner" / "b").touch()
    assert {name for is_there, name in flushed if not is_there} == {"a", "inner", "b", folder.name}
    assert flushed[-1] == (True, tmp_path.name)

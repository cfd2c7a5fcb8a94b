"""Names of files that can't be stored as text, or that the locale of a process can't express."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_dist.common import file_names

CHECKOUT = Path(__file__).resolve().parents[2]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("name", ["song", "Blåbær", "a [live] 50% {x}"])
def test_names_in_utf8_pass(name: str) -> None:
    file_names.check_utf8(Path(name))


def test_a_name_that_is_not_utf8_is_named_and_no_fault_of_the_locale() -> None:
    name = os.fsdecode(b"train/S\xf5na")
    file_names.check_locale(name)
    with pytest.raises(ValueError, match=r"file name b'S\\xf5na' in train is not UTF-8: rename it"):
        file_names.check_utf8(Path(name))


@pytest.mark.parametrize(
    ("name", "is_told"),
    [("'song'", False), ("sys.argv[1]", True), ("os.fsencode(sys.argv[1]).decode()", True), (r"'S\udcf5na'", False)],
    ids=["ascii", "typed", "from a file of settings", "not UTF-8"],
)
def test_where_the_locale_knows_only_ascii_other_letters_are_named(name: str, is_told: bool) -> None:
    code = (
        "import os, sys; from p2p_dist.common import file_names\n"
        f"try: file_names.check_locale({name})\n"
        "except ValueError as error: sys.stdout.buffer.write(str(error).encode())"
    )
    done = subprocess.run([sys.executable, "-c", code, "Blåbær"], env={**os.environ, **ASCII}, capture_output=True, check=True)
    told = "the file name 'Blåbær' has letters that the locale 'C' (ascii) lacks: set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
    assert done.stdout.decode() == (told if is_told else "")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"LC_ALL": "a", "LC_CTYPE": "b", "LANG": "c"}, "a"),
        ({"LC_ALL": "", "LC_CTYPE": "b", "LANG": "c"}, "b"),
        ({"LANG": "c"}, "c"),
    ],
)
def test_the_variable_that_decides_over_the_locale_is_named(
    said: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of POSIX."""
    monkeypatch.setattr(file_names.os, "fsencode", lambda text: text.encode("ascii"))
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.setenv(name, said[name]) if name in said else monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=f"letters that the locale '{named}' "):
        file_names.check_locale("Blåbær")


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        ("generate.py SONG/blå.wav", ""),
        ("generate.py SONG", ""),
        ("evaluate.py --files SONG/{blå,blå,blå}.wav", ""),
        ("submit.py --preset tiny", "løb"),
    ],
)
def test_commands_say_so_before_they_begin(tmp_path: Path, typed: str, runs: str) -> None:
    (tmp_path / "blå.wav").write_bytes(b"x")
    words = typed.replace("SONG", str(tmp_path)).split()
    done = subprocess.run(
        [sys.executable, CHECKOUT / "launch" / words[0], *words[1:]],
        env={**os.environ, **ASCII, "P2P_RUNS": str(tmp_path / runs)},
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 2 and b"has letters that the locale 'C' (ascii) lacks: set LC_ALL=C.UTF-8" in done.stderr


def test_a_locale_that_reads_letters_as_others_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of Latin-1 does. If it failed: "BlÃ¥bÃ¦r" in every record, and the song is another one in a locale of UTF-8."""
    monkeypatch.setattr(file_names.os, "fsencode", lambda text: text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"the file name 'Blåbær' has letters that the locale .* lacks: set LC_ALL=C\.UTF-8"):
        file_names.check_locale("Blåbær".encode().decode("latin-1"))
    file_names.check_locale("Blåbær")  # a name in Latin-1 itself
    file_names.check_locale("song")

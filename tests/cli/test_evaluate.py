"""The evaluate command: a run, its checkpoints, other songs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from p2p_dist.cli import evaluate
from p2p_dist.common import files, records
from p2p_dist.evaluate import checkpoints
from p2p_dist.run import rundir
from p2p_dist.settings.config import Config
from tests.conftest import write_songs
from tests.evaluate.evaluations import add_checkpoint, copied, place

__all__ = ["copied", "place"]


def test_the_command_measures_what_is_asked(copied: tuple[rundir.RunDir, Config], capsys: pytest.CaptureFixture[str]) -> None:
    run, settings = copied
    add_checkpoint(run, 15, settings)
    add_checkpoint(run, 20, settings)
    assert evaluate.main(["run", "--checkpoints", "20", "--json", str(run.path / "figures.json")]) == 0
    shown = capsys.readouterr().out
    assert "| step 20 |" in shown and "| ceiling |" in shown and "step 15" not in shown and "best checkpoint: step" in shown
    assert "absent: distance: too few windows: it needs 8, " in shown
    assert not (run.evaluations / "step-00000015").exists() and run.page.is_file()
    assert set(records.read(run.path / "figures.json")["mean"]) >= {"step 20", "silence"}


def test_the_command_measures_on_other_songs(copied: tuple[rundir.RunDir, Config], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = copied
    write_songs(run.path.parent.parent / "others", {"test/nine": 4.1, "train/ten": 2.0})
    files.write_json(run.status, {"what": "train"})  # it may train meanwhile
    before = {path: path.read_bytes() for path in (run.status, *run.evaluations.rglob("*.json"))}
    assert evaluate.main(["run", "--checkpoints", "10", "--data", str(run.path.parent.parent / "others")]) == 0
    shown = capsys.readouterr().out
    assert "| step 10 |" in shown and "| loop of another song |" in shown and "trained on" not in shown
    (out,) = (run.path / "measured").iterdir()
    assert [song["name"] for song in records.read(out / "step-00000010" / "metrics.json")["songs"]] == ["nine"]
    assert before == {path: path.read_bytes() for path in (run.status, *run.evaluations.rglob("*.json"))}, "the run's own"


def test_figures_replace_nothing_but_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root `--json /dev/null` would put a file in its place."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "folder").mkdir()
    for name, what in (("pipe", "not a regular file"), ("link", "a link"), ("folder", "a folder")):
        with pytest.raises(ValueError, match=rf"--json names a file to write, and .*{name} is {what}: name another file"):
            evaluate.main(["run", "--json", str(tmp_path / name)])
    for option, what in (("--data", "folder"), ("--json", "file")):
        for words in ([option, ""], [f"{option}="]):
            with pytest.raises(ValueError, match=f"{option} is empty: specify a {what}"):
                evaluate.main(["run", *words])
    monkeypatch.chdir(tmp_path / "folder")
    with pytest.raises(ValueError, match="no run run"):  # the current folder has a name
        evaluate.main(["run", "--data", "."])


def test_other_songs_that_were_trained_on_are_named(
    copied: tuple[rundir.RunDir, Config], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = copied
    mine = run.path.parent.parent / "mine"  # not sorted into train/ and test/, so all songs are measured
    write_songs(mine, {"nine": 4.1, "one": 4.2})  # the title of a training song, with other audio
    shutil.copytree(run.path.parent.parent / "songs" / "train" / "one", mine / "a copy")
    assert evaluate.main(["run", "--checkpoints", "10", "--data", str(mine)]) == 0
    said = "the run was trained on these songs, so the figures do not apply to other songs: a copy\n"
    assert said in capsys.readouterr().out


def test_other_songs_are_measured_by_one_at_a_time(
    copied: tuple[rundir.RunDir, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would remove what the first has just written, or fail at the end where the first has been before it."""
    run, _ = copied
    others = run.path.parent.parent / "others"
    write_songs(others, {"test/nine": 4.1})
    arguments = ["run", "--checkpoints", "10", "--data", str(others)]
    refused = []

    def typed_again(*_: object) -> int:
        with pytest.raises(ValueError) as told:
            evaluate.main(arguments)
        refused.append(str(told.value))
        raise LookupError

    monkeypatch.setattr(checkpoints, "evaluate", typed_again)
    for _ in range(2):  # whoever ended, however, owns nothing
        with pytest.raises(LookupError):
            evaluate.main(arguments)
    (out,) = (run.path / "measured").iterdir()
    said = f"the run run is being measured on the songs in {others} already: process {os.getpid()} on "
    assert len(refused) == 2 and all(said in text and text.endswith(f"its figures are written to {out}") for text in refused)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no run nowhere in"),
        (["run", "--checkpoints", "7"], r"no checkpoint of step 7 in .*: there are 5, 10"),
        (["run", "--data", "/nowhere"], "no folder /nowhere"),
        (["run", "--mixes"], "--mixes and --best-gain only apply to --files"),
        (["run", "--files", "x"], "name a run, or audio files"),
        ([], "name a run, or audio files"),
        (["--files", "x", "--checkpoints", "5"], "need a run"),
    ],
)
def test_wrong_usage_is_said_kindly(
    copied: tuple[rundir.RunDir, Config], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((ValueError, SystemExit)) as refused:
        evaluate.main(arguments)
    text = str(refused.value)
    if isinstance(refused.value, SystemExit):
        assert refused.value.code == 2
        text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(said, text), text


def test_a_run_that_is_running_is_left_alone(copied: tuple[rundir.RunDir, Config]) -> None:
    owner = rundir.lock_run(copied[0])
    with pytest.raises(ValueError, match="is running already"):
        evaluate.main(["run"])
    owner.close()

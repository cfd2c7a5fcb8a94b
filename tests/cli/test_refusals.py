"""A command that is refused leaves nothing behind: no folder, no file, no lock, nothing in $TMPDIR."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from p2p_dist.checks.drill import here
from p2p_dist.checks.preflight import preflight
from p2p_dist.checks.scaling import scaling
from p2p_dist.cli import cancel, check, evaluate, export, preprocess, status, submit
from p2p_dist.common import console, files
from p2p_dist.jobs import local
from tests.conftest import lay_out_run, write_songs

MAIN: dict[str, Callable[[list[str]], int]] = {
    "submit": submit.main,
    "preprocess": preprocess.main,
    "evaluate": evaluate.main,
    "export": export.main,
    "status": status.main,
    "cancel": cancel.main,
    "check": check.main,
}

TYPED = """
submit --run unknown
submit --run ../elsewhere --preset tiny
submit --run 'two words' --preset tiny
submit --preset unknown
submit --preset tiny --train.steps -1
submit --preset tiny --train.stepz 3
submit --preset tiny --account 'a\\nb' --cluster slurm
submit --preset tiny --nodes 40
submit --preset tiny --nodes 5
submit --preset tiny --nodes 5 --dry-run
submit --preset tiny --cluster slurm --site bad-site.yaml
submit --preset tiny --cluster slurm --dry-run --site bad-site.yaml
submit --preset tiny --cluster slurm
submit --preset tiny --cluster lumi --container missing.sif --account project_1
submit --preset tiny --data missing
submit --preset tiny --data '~no-such-user/songs'
submit --preset tiny --data empty
submit --preset tiny --data no-test
submit --preset tiny --data no-train
submit --preset tiny --data ''
submit --config missing.yaml
submit --config ''
submit --config= --dry-run
submit --config twice.yaml
submit --preset tiny --sweep train.seed=0,x
submit --preset tiny --sweep train.global-batch-size=4,3 --nodes 4
submit --preset tiny --sweep data.task=drums,unknown
submit --preset tiny --sweep train.seed=0,1 --data no-test
submit --run known --train.seed 9
submit --preset tiny --run a-file
P2P_RUNS=a-file submit --preset tiny
P2P_RUNS=a-file/runs submit --preset tiny
P2P_RUNS=no-shards/runs submit --preset tiny
P2P_RUNS=no-shards/runs submit --preset tiny --dry-run
preprocess
preprocess --data missing
preprocess --data '~no-such-user/songs'
preprocess --data empty
preprocess --data empty --out new/shards
preprocess --data songs --task unknown
preprocess --data songs --part 8/8
preprocess --data songs --workers 0
preprocess --data songs --out /
preprocess --data songs --out a-file
preprocess --data songs --out a-file/shards
preprocess --data songs --cluster slurm --out new/shards
preprocess --data empty --cluster slurm
preprocess --verify --out missing
preprocess --verify --data songs
evaluate unknown
evaluate known
evaluate known --checkpoints best
evaluate known --checkpoints 99
evaluate known --data missing
evaluate known --data no-test
evaluate known --data songs --checkpoints 99
evaluate known --json a-file/figures.json
evaluate --files 'missing/{input,output,target}/*.wav'
evaluate --files 'no braces' --json new/figures.json
export known
export unknown --out new/model
export known --out new/model
export known@x --out new/model
export known@99 --out new/model
export ../elsewhere --out new/model
export trained --out songs
export trained --out songs --overwrite
export trained --out a-file/model
export trained@5 --out new/model
export trained --out new/model
status unknown
status unknown --verify
cancel unknown
cancel known
P2P_RUNS=a-file check preflight
check preflight --nodes 0
check preflight --cluster slurm
check preflight --site bad-site.yaml --cluster slurm
check preflight --cluster lumi --container missing.sif --account project_1
check preflight --data missing
check scaling --nodes 0 --preset tiny
check scaling --nodes 1 --preset unknown
check scaling --nodes 1 --preset tiny --data missing
check scaling --nodes 1 --preset tiny --data empty
check scaling --nodes 1 --preset tiny --data no-train
check scaling --nodes 1,40 --preset tiny
check scaling --nodes 1 --preset tiny --cluster slurm
check scaling --nodes 1 --preset tiny --cluster slurm --site bad-site.yaml
check drill --processes 5
check drill --steps 0
check drill --nodes 0
check drill --patience nan
check scaling --steps 0 --preset tiny
check scaling --time soon --preset tiny
check drill --data missing
check drill --data empty
check drill --cluster slurm
check drill --cluster slurm --site bad-site.yaml
""".strip().splitlines()
"""A command line a row; `\\n` in it is the end of a line."""


def tree(root: Path) -> dict[str, str]:
    """What lies in a folder: kind and content by path."""
    found = {}
    for path in sorted(root.rglob("*")):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(root))] = kind
    return found


@pytest.fixture(scope="module")
def place(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: songs, a run that began, and files with mistakes in them."""
    place = tmp_path_factory.mktemp("refused")
    write_songs(place / "songs", {"train/one": 1.6, "train/two": 1.6, "test/five": 1.5})
    write_songs(place / "no-test", {"train/one": 1.6})
    write_songs(place / "no-train", {"test/one": 1.6})
    lay_out_run(place, tiny_shards, "known")
    trained, _ = lay_out_run(place, tiny_shards, "trained")
    files.write_text(trained.checkpoints / "step-00000005" / "generator.safetensors", "damaged")
    for folder in ("empty", "tmp"):
        (place / folder).mkdir()
    (place / "no-shards" / "runs").mkdir(parents=True)
    (place / "no-shards" / "shards").write_text("")
    (place / "runs" / "a-file").write_text("")
    (place / "a-file").write_text("")
    for name, does in {"sbatch": "echo 'sbatch: error: no' >&2; exit 1", "scontrol": "exit 0", "squeue": "exit 0"}.items():
        files.write_text(place / "bin" / name, f"#!/bin/sh\n{does}\n")
        (place / "bin" / name).chmod(0o755)
    (place / "bad-site.yaml").write_text("partition: [")
    (place / "not-yaml.yaml").write_text("train: {steps: 3")
    (place / "twice.yaml").write_text("preset: tiny\ntrain: {steps: 3}\ntrain: {steps: 4}\n")
    (place / "unknown.yaml").write_text("preset: tiny\ntrain: {stepz: 3}\n")
    return place


def typed(place: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> int | str | None:
    """Run a command line in `place`; its exit code."""
    monkeypatch.chdir(place)
    for name in ("MUSDB_PATH", "SBATCH_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("P2P_RUNS", str(place / "runs"))
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    monkeypatch.setenv("PATH", str(place / "bin"))  # a Slurm that refuses every job, whatever this machine has
    name, *arguments = shlex.split(line)
    if name.startswith("P2P_RUNS="):
        monkeypatch.setenv("P2P_RUNS", name.partition("=")[2])
        name, *arguments = arguments
    monkeypatch.setattr(sys, "argv", [f"launch/{name}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        console.exit_with(lambda: MAIN[name]([text.replace("\\n", "\n") for text in arguments]))
    return ended.value.code


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is not refused would compute for minutes: let it fail at once instead."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("it was not refused")

    monkeypatch.setattr(local, "run", started)
    monkeypatch.setattr(scaling, "measure_here", started)
    monkeypatch.setattr(here, "drill_here", started)
    monkeypatch.setattr(preflight, "on_this_machine", started)


@pytest.mark.parametrize("line", TYPED)
def test_what_is_refused_leaves_nothing_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    before = tree(place)
    code = typed(place, monkeypatch, line)
    said = capsys.readouterr()
    assert code in (1, 2), said
    assert tree(place) == before, said
    assert said.err.strip() or "checks failed" in said.out, said

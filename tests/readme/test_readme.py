"""Every command block of the README, pasted into a shell in a fresh clone, as a newcomer would."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", (CHECKOUT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

OF_THE_CALLER = {"P2P_RUNS", "MUSDB_PATH", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
"""What a newcomer's shell has not; a make inside a make also prints the folders it enters."""

RUN_ELSEWHERE = {"make test", "make guards"}
"""Commands that .ci/run runs by themselves; here they would only run twice."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The committed state, in a new folder."""
    target = tmp_path_factory.mktemp("clone") / "p2p_dist"
    subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(target)], check=True)
    return target


def test_there_are_commands():
    assert any("make demo" in block for block in BLOCKS)
    ours = (CHECKOUT / ".ci" / "run").read_text()
    assert all(command in ours for command in RUN_ELSEWHERE)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_the_commands_work_when_pasted(block, clone):
    lines = [line for line in block.splitlines() if line not in RUN_ELSEWHERE]
    environment = {k: v for k, v in os.environ.items() if k not in OF_THE_CALLER}
    environment["PATH"] = f"{clone}/.venv/bin:{environment['PATH']}"  # what `source .venv/bin/activate` does
    if "~/" in block:
        environment["HOME"] = str(clone.parent)
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)], cwd=clone, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if "completion" in block:
        (written,) = (clone.parent / ".local" / "share").rglob("p2p-dist")
        known = subprocess.run(["bash", "-c", f"source {written} && complete -p p2p-dist"], capture_output=True, text=True)
        assert known.stdout.endswith(" p2p-dist\n"), known
    if "make demo" in lines:
        page = done.stdout.splitlines()[-1]
        assert page == f"page: {clone}/runs/drums-demo/page/index.html" and Path(page.removeprefix("page: ")).is_file()


def test_the_demo_takes_so_many_minutes_at_most_once_installed(clone):
    """The promise of the README's first section, with the installation done by the block before."""
    (minutes,) = re.findall(r"Then it needs less than (\d+) minutes", (CHECKOUT / "README.md").read_text())
    begun = time.monotonic()
    command = [
        str(clone / ".venv" / "bin" / "python"),
        "launch/submit.py",
        "--nodes",
        "2",
        "--preset",
        "demo",
        "--run",
        "again",
    ]
    subprocess.run(command, cwd=clone, check=True, stdout=subprocess.DEVNULL, timeout=60 * int(minutes))
    assert time.monotonic() - begun < 60 * int(minutes)

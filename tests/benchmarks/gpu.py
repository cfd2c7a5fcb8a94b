"""Everything that only a GPU can answer, in one command: does it run, is it right, how fast is it.

    python tests/benchmarks/gpu.py [--minutes 8] [--part all|runs|right|fast|rest] [--only NAME ...] [--device cuda|cpu]
    python tests/benchmarks/gpu.py --add FILE ...

Writes FOLDER/gpu.md and gpu.json (default: beside this file), anew after every measurement that ends. Each part is a process
of its own, each measurement in it another: one that crashes or hangs costs itself only. The same command again does what is
missing, as long as device, versions and code are the same; what was measured under other conditions is shown beside it, and
says so. --only names measurements, as the report does, or by patterns such as 'thesis: bf16*', in the order in which they are
made. --add takes over what other calls of this command wrote elsewhere, and measures nothing. On a CPU everything is done in
small, to show that it works.

This file needs Python alone. Packages that the machine lacks are taken from the wheels that `make gpu-wheels` fetched.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from gpu_parts import kept, report, wheels  # noqa: E402

PARTS = {"runs": 1.7, "right": 1.9, "fast": 2.3, "rest": 2.1}
"""In the order of what matters most, with the minutes of eight that each may take; what one leaves, the later ones have."""

IN_SMALL = {"runs": 1.5, "right": 3.0, "fast": 2.5, "rest": 1.0}
"""The same on a CPU, where each part takes most of its time to begin."""


PATIENCE = 10.0
"""Seconds that a part may take beyond its own, in which it ends its measurement by itself."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--part", choices=["all", *PARTS], default="all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cuda is ROCm's name for its cards, too")
    parser.add_argument("--report", type=Path, default=HERE, help="folder of gpu.md and gpu.json")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="measurements, or patterns of their names")
    parser.add_argument("--add", nargs="+", default=[], type=Path, metavar="FILE", help="gpu.json of other calls")
    parser.add_argument("--data", type=Path, help="folder of songs for the training at the end (default: the example song)")
    asked = parser.parse_args(arguments)
    if not 0 < asked.minutes <= 1440:
        parser.error(f"--minutes {asked.minutes:g}: must be greater than zero, and at most 1440")
    if asked.data is not None and not asked.data.is_dir():
        parser.error(f"--data {asked.data}: there is no such folder")
    for path in asked.add:
        try:
            kept.read(path)
        except ValueError as error:
            parser.error(f"--add {error}")
    return asked


def code_digest() -> str:
    """12 hexadecimal digits that name the code: figures of other code are not kept."""
    found = hashlib.sha256()
    for folder in (ROOT / "p2p_dist", HERE):
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def commit() -> str:
    """The commit of this checkout, with a plus where files differ from it; "unknown" in a copy without git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask = ["git", "-C", str(ROOT)]
        name = subprocess.run([*ask, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=20, check=True)
        changed = subprocess.run([*ask, "diff", "--quiet", "HEAD", "--", "p2p_dist"], capture_output=True, timeout=20)
        return name.stdout.strip() + ("+" if changed.returncode else "")
    return "unknown"


class Run:
    """What is known so far, and the two files that say it."""

    def __init__(self, asked: argparse.Namespace, python: str, environment: dict[str, str], scratch: Path) -> None:
        self.asked, self.python, self.environment, self.scratch = asked, python, environment, scratch
        self.deadline = time.monotonic() + 60 * asked.minutes
        self.content: dict[str, Any] = {}
        self.path = asked.report / "gpu.json"
        self.process, self.code = 0, None
        self.names: dict[str, list[str]] = {}

    def begin(self, about: dict[str, Any]) -> None:
        """Take over the measurements of an earlier call on the same device, versions and code."""
        about |= {"code": code_digest(), "commit": commit()}
        if kept.or_nothing(self.path).get("about", {}).get("kind") == "cuda" and about["kind"] == "cpu":
            self.path = self.path.with_name("gpu-cpu.json")  # figures of a card are not given away for those of a CPU
        self.content = kept.under(kept.or_nothing(self.path), about)
        done = self.content["measurements"]
        if done:
            print(f"{len(done)} measurements of an earlier call stay: {self.path}", flush=True)
        self.write()

    def write(self) -> None:
        self.content["about"]["written"] = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        replace(self.path, json.dumps(self.content, indent=1) + "\n")
        replace(self.path.with_suffix(".md"), report.in_words(self.content))

    def start(self) -> None:
        """The process that imports torch, of which the parts are forked. It has time for that up to the deadline."""
        self.log = self.scratch / "worker.log"
        with self.log.open("ab") as output:
            self.worker = subprocess.Popen(
                [self.python, str(HERE / "gpu_parts" / "worker.py"), self.asked.device],
                cwd=self.scratch,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        while self.worker.poll() is None and time.monotonic() < self.deadline:
            said = self.log.read_text(errors="replace")
            if "ready\n" in said:
                self.names = json.loads(said[: said.index("ready\n")].splitlines()[-1])
                return
            time.sleep(0.05)
        print("\n".join(self.log.read_text(errors="replace").splitlines()[-12:]))
        raise SystemExit("error: the measurements could not be imported (above)")

    def part(self, name: str, seconds: float) -> None:
        """Run what is missing of a part in its own process; take up its lines as they come."""
        done = [key.partition("/")[2] for key in self.content["measurements"] if key.startswith(f"{name}/")]
        lines = self.scratch / f"{name}.jsonl"
        lines.touch()
        work = {"part": name, "device": self.asked.device, "seconds": seconds, "done": done, "lines": str(lines)}
        work |= {
            "only": self.asked.only,
            "data": str(self.asked.data.resolve()) if self.asked.data else None,
            "scratch": str(self.scratch),
        }
        print(f"\n{name}: at most {seconds:.0f} s", flush=True)
        assert self.worker.stdin is not None
        self.worker.stdin.write(json.dumps(work) + "\n")
        self.worker.stdin.flush()
        self.process, self.code = 0, None
        end = time.monotonic() + seconds + PATIENCE
        with lines.open() as told:
            while self.code is None and self.worker.poll() is None and time.monotonic() < end:
                if self.take(name, told):
                    kept.forget(self.content)
                    self.write()
                time.sleep(0.05)
            self.take(name, told)
        if self.code:
            self.gave_up(name, f"ended with {self.code}")
        elif self.code is None:
            why = "hung and was killed" if self.worker.poll() is None else "died together with what watched over it"
            for process in (self.process, self.worker.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL) if process else None
            self.gave_up(name, why)
            self.start()
        self.write()

    def gave_up(self, name: str, why: str) -> None:
        last = self.log.read_text(errors="replace").splitlines()[-12:]
        self.content["measurements"][f"{name}/(the part itself)"] = {"state": "failed", "why": why, "lines": last}
        print(f"  {name} {why}\n    " + "\n    ".join(last), flush=True)

    def take(self, part: str, told: Any) -> bool:
        """Take up the lines that a part has written since the last call; whether a measurement ended."""
        ended = False
        while (line := told.readline()).endswith("\n"):
            said = json.loads(line)
            if said["say"] == "part begins":
                self.process = said["process"]
                continue
            if said["say"] == "part ends":
                self.code = said["code"]
                continue
            one = self.content["measurements"].setdefault(f"{part}/{said['name']}", {"state": "failed", "rows": []})
            if said["say"] == "row":
                one["rows"].append(said["row"])
                print("    " + report.row_in_words(said["row"]), flush=True)
            else:
                if said["say"] == "begins":
                    one.update(rows=[], table=said["table"], title=said["title"], state="failed", why="did not end")
                else:
                    one.update({name: said[name] for name in ("state", "seconds", "why", "lines") if name in said})
                    ended = True
                why = f": {said['why']}" if said.get("why") else ""
                print(f"  {said['name']} {said.get('state', 'begins')}{why}", flush=True)
        return ended


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def about_the_machine(python: str, environment: dict[str, str], device: str) -> dict[str, Any]:
    """Card, driver and versions, asked for in a process of its own.

    Raises:
        SystemExit: this Python has no torch, or torch sees no such device.
    """
    command = [python, str(HERE / "gpu_parts" / "about.py"), device]
    try:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"torch or the device {device} did not answer within 120 s") from None
    if found.returncode:
        raise SystemExit(f"error: {found.stderr.strip().splitlines()[-1] if found.stderr.strip() else command}")
    about = json.loads(found.stdout.splitlines()[-1])
    assert isinstance(about, dict)
    return about


def wanted(names: dict[str, list[str]], parts: list[str], only: list[str]) -> list[str]:
    """The parts that have something to measure.

    Raises:
        SystemExit: nothing in these parts has one of the names.

    >>> wanted({"right": ["stages"], "fast": ["thesis: tf32", "data"]}, ["right", "fast"], ["thesis:*"])
    ['fast']
    """
    there = [name for part in parts for name in names[part]]
    for pattern in only:
        if not fnmatch.filter(there, pattern):
            raise SystemExit(f"error: --only {pattern!r} is no measurement of {', '.join(parts)}: there are {'; '.join(there)}")
    return [part for part in parts if not only or any(fnmatch.filter(names[part], pattern) for pattern in only)]


def add(asked: argparse.Namespace) -> int:
    """Take the measurements of other calls into the report."""
    path = asked.report / "gpu.json"
    content = kept.or_nothing(path)
    for other in asked.add:
        content = kept.added(content, kept.read(other))
    replace(path, json.dumps(content, indent=1) + "\n")
    replace(path.with_suffix(".md"), report.in_words(content))
    print(f"{len(content['measurements'])} measurements, {len(content['earlier'])} of earlier calls: {path.with_suffix('.md')}")
    return 0


def main() -> int:
    asked = parse()
    if asked.add:
        return add(asked)
    ours = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("torch") is None:
        if not ours.exists() or Path(sys.prefix) == ROOT / ".venv":
            print(f"error: {sys.executable} has no torch: name one that has (make gpu PYTHON=...), or make install first")
            return 1
        os.execv(ours, [str(ours), __file__, *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="p2p-gpu-") as folder:
        scratch = Path(folder)
        path, python = [str(ROOT), str(HERE)], sys.executable
        if unpacked := wheels.unpack(ROOT / wheels.FOLDER, scratch / "site"):
            print(f"from {wheels.FOLDER}: {', '.join(unpacked)}", flush=True)
            try:
                python = wheels.python_with(scratch / "site", scratch / "python")
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                print(f"stages of the launcher won't find them: {error}", flush=True)
                path.append(str(scratch / "site"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
        environment |= {"P2P_RUNS": str(scratch / "runs")}
        if asked.device == "cpu":
            # One thread each, also of what the launcher starts: on busy cores threads that wait for each other take for ever.
            environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        run = Run(asked, python, environment, scratch)
        run.begin(about_the_machine(python, environment, asked.device))
        print(report.about_in_words(run.content["about"]), flush=True)
        run.start()
        weights = PARTS if asked.device == "cuda" else IN_SMALL
        names = wanted(run.names, list(PARTS) if asked.part == "all" else [asked.part], asked.only)
        for number, name in enumerate(names):
            # Of the time that is left: so a part may use what those before it have left over.
            left = run.deadline - time.monotonic()
            run.part(name, max(1.0, left * weights[name] / sum(weights[other] for other in names[number:])))
        run.worker.kill()
    states = [one["state"] for one in run.content["measurements"].values()]
    counts = {state: states.count(state) for state in ("done", "failed", "cut off", "not run")}
    print(f"\n{', '.join(f'{count} {state}' for state, count in counts.items())}: {run.path.with_suffix('.md')}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

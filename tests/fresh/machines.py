"""The README's two commands, then the wheel alone, on new machines that have nothing of ours: make fresh

python3 tests/fresh/machines.py [SUITE ...]     of Debian: bookworm, trixie

Each machine is a folder, build/fresh/SUITE, that debootstrap fills with Debian's base system, Python, make and git. Of this
machine only what packages are fetched with is passed in: the mirror and the proxy of apt, the settings of pip, the folders
that they name (read-only), and the certificates. The commands run in the folder as an ordinary user, in a home whose name has
a space, in namespaces of their own: when they end or are stopped, however, all their processes and mounts end with them.
What a command says is missing is installed as it says. Needs root. The folder of a machine that failed is kept.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
HOME = Path("/home/the player")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

LEFT_OUT = (
    r"only root can",
    r"no name spaces for users here",  # the kernel refuses them where the root directory was changed
    r"(ffmpeg|FluidSynth or its sound font|pgrep|curl|no compiler)\b",
)
"""What a test says that is left out because an ordinary user runs it, or for want of what Debian's base system has not."""

ENTER = """
root=$1 user=$2; shift 2
mount --bind "$root" "$root" # it is a file system, as on every machine
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do ln -s "fd/$number" "$root/dev/$(echo stdin stdout stderr | cut -d ' ' -f $((number + 1)))"; done
mkdir -m 1777 "$root/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mkdir "$root/dev/pts" && mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$(dirname "$root$1")" && touch "$root$1"; fi
    mount --bind "$1" "$root$1" && mount -o remount,bind,ro "$root$1"
    shift
done
shift
code=0
chroot --userspec="$user" "$root" "$@" || code=$?
exit $code
"""
"""Mounts what every machine has and the paths before `--`, read-only, then runs the command after it. The shell stays, as root:
a process that changes its user is no longer killed when its parent ends."""


def pip_settings(listed: str) -> tuple[dict[str, str], list[Path]]:
    """Turn what `pip config list` prints into variables for another machine, and the paths that must be there, too.

    >>> pip_settings("global.find-links='/nowhere'\\n:env:.default-timeout='180'\\nglobal.cert='/etc/hosts'\\n")
    ({'PIP_FIND_LINKS': '/nowhere', 'PIP_DEFAULT_TIMEOUT': '180', 'PIP_CERT': '/etc/ssl/certs/ca-certificates.crt'}, [])
    """
    variables: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        variables["PIP_" + name.rpartition(".")[2].upper().replace("-", "_")] = " ".join(str(ast.literal_eval(value)).split())
    if "PIP_CERT" in variables:
        variables["PIP_CERT"] = str(CERTIFICATES)  # of the new machine, which has ours
    paths = []
    for value in variables.values():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists() and path != CERTIFICATES:
                paths.append(path.parent if path.name == "simple" else path)  # the files lie beside an index
    return variables, paths


def isolated(*command: str | Path) -> list[str]:
    """A command in namespaces of its own for mounts and processes, which end when it or this process ends."""
    kept = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
    ]
    return [*kept, *map(str, command)]


def left_out(lines: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many tests pytest -rs left out, and those of its lines whose reason is none of `LEFT_OUT`."""
    found = [(int(match[1]), line.strip()) for line in lines if (match := re.match(r"SKIPPED \[(\d+)\] ", line))]
    return sum(count for count, _ in found), [line for _, line in found if not any(re.search(why, line) for why in LEFT_OUT)]


class Machine:
    """A new machine in a folder. lines: what the last command printed."""

    def __init__(self, suite: str) -> None:
        self.suite, self.root, self.lines = suite, CHECKOUT / "build" / "fresh" / suite, list[str]()
        listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
        self.settings, self.paths = pip_settings(listed.stdout)
        self.settings |= {name: os.environ[name] for name in PROXIES if name in os.environ}
        if CERTIFICATES.is_file():
            self.settings["SSL_CERT_FILE"] = str(CERTIFICATES)

    def make(self) -> None:
        """Debian's base system, Python, make and git; the user; the committed state of this checkout."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        included = "--include=ca-certificates,git,make,python3"
        log = self.root.with_suffix(".log")
        mirror = apt_mirror()
        with log.open("w") as told:
            made = subprocess.run(
                isolated("debootstrap", "--variant=minbase", included, self.suite, self.root, *mirror), stdout=told, check=False
            )
        if made.returncode:
            sys.exit(f"error: debootstrap failed: see {log}")
        shutil.copy("/etc/resolv.conf", self.root / "etc" / "resolv.conf")
        (self.root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")  # Debian's installer writes it
        if CERTIFICATES.is_file():
            shutil.copy(CERTIFICATES, self.root / CERTIFICATES.relative_to("/"))
        dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        kept = re.findall(r"^Acquire::(?:https?::|Check-|Retries).*$", dumped, re.MULTILINE)
        (self.root / "etc/apt/apt.conf.d/99host").write_text("\n".join([*kept, ""]))
        self.run("useradd --create-home --home-dir '/home/the player' --shell /bin/bash player", user="root")
        bundle = self.root / "tmp" / "checkout.bundle"
        subprocess.run(["git", "-C", CHECKOUT, "bundle", "create", "--quiet", bundle, "HEAD"], check=True)
        self.run("git -c advice.detachedHead=false clone --quiet /tmp/checkout.bundle p2p_dist", where=HOME)

    def call(self, command: str, user: str = "player", where: Path = HOME / "p2p_dist") -> list[str]:
        """The whole command line that runs a shell command on the machine."""
        home = HOME if user == "player" else Path("/root")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = {"HOME": str(home), "USER": user, "LOGNAME": user, "PATH": path, "LANG": "C.UTF-8"} | self.settings
        told = [f"{name}={value}" for name, value in variables.items()]
        shell = f"cd {shlex.quote(str(home if user == 'root' else where))} && {command}"
        inside = ["env", "-i", *told, "bash", "-c", shell]
        return isolated("sh", "-euc", ENTER, "enter", self.root, f"{user}:{user}", *self.paths, "--", *inside)

    def run(self, command: str, user: str = "player", where: Path = HOME / "p2p_dist", fails_with: str | None = None) -> float:
        """Run a command and show what it prints.

        Args:
            fails_with: it must fail and print this.

        Returns:
            seconds

        Raises:
            SystemExit: it failed, or did not as it should have.
        """
        print(f"[{self.suite}] {user}$ {command}", flush=True)
        begin, self.lines = time.monotonic(), []
        with subprocess.Popen(
            self.call(command, user, where),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.lines.append(line)
                print(f"[{self.suite}]   {line}", end="", flush=True)
        if fails_with is not None:
            if process.returncode == 0 or fails_with not in "".join(self.lines) or len(self.lines) > 3:
                sys.exit(f"error: it must fail and say in one sentence: {fails_with}")
        elif process.returncode:
            sys.exit(f"error: it ended with {process.returncode} on {self.suite}; its files are in {self.root}")
        return time.monotonic() - begin

    def seconds_to(self, pattern: str, command: Callable[[], float]) -> tuple[float, float]:
        """Run a command; the seconds until a file of this pattern is in the home, and until it ended."""
        begin, first, ended = time.monotonic(), [], threading.Event()

        def look() -> None:
            while not ended.wait(0.2):
                if next((self.root / HOME.relative_to("/")).glob(pattern), None):
                    first.append(time.monotonic() - begin)
                    return

        watch = threading.Thread(target=look)
        watch.start()
        try:
            whole = command()
        finally:
            ended.set()
            watch.join()
        if not first:
            sys.exit(f"error: no {pattern}")
        return first[0], whole


def apt_mirror() -> list[str]:
    """The mirror of Debian that this machine's apt uses; nothing where it uses none: debootstrap knows one."""
    asked = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return [line.split()[1] for line in lines if line.startswith("Debian ")][:1]


def try_out(machine: Machine) -> str:
    """Everything that a stranger does first; a line that says how long it took."""
    machine.make()
    machine.run("make demo", fails_with="apt-get install python3-venv")
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null"
    machine.run(f"apt-get update -qq && {install}", user="root")
    torch = "python3 -m venv /tmp/fetch && /tmp/fetch/bin/pip download --quiet -c constraints.txt -d /tmp/fetch/files torch"
    fetched = machine.run(f"{torch} && rm -r /tmp/fetch")  # it stays in the cache of pip
    sound = "p2p_dist/runs/*/evaluations/step-*/audio/*-stem.flac"
    first, demo = machine.seconds_to(sound, lambda: machine.run("make demo"))
    tests = machine.run("PYTEST_ADDOPTS=-rs make test")
    count, unexpected = left_out(machine.lines)
    if unexpected:
        sys.exit("error: tests were left out for a reason that a new machine does not give:\n" + "\n".join(unexpected))
    machine.run(".venv/bin/python -m pip wheel --quiet --no-deps -w dist .")
    # Nothing but the wheel: what it says without the packages of jobs, then with them.
    machine.run("python3 -m venv alone && alone/bin/pip install --quiet p2p_dist/dist/*.whl", where=HOME)
    machine.run("alone/bin/p2p-dist --help", where=HOME)
    song = "p2p_dist/songs/falcon69/test/*.mp4"
    machine.run(f"alone/bin/p2p-dist generate {song} --to 5", where=HOME, fails_with="[run]")
    machine.run('alone/bin/pip install --quiet -c p2p_dist/constraints.txt "$(ls "$PWD"/p2p_dist/dist/*.whl)[run]"', where=HOME)
    stem, _ = machine.seconds_to(
        "generated/*/*-drums.flac", lambda: machine.run(f"alone/bin/p2p-dist generate {song} --to 5", where=HOME)
    )
    shutil.rmtree(machine.root)
    return (
        f"{machine.suite}: torch fetched in {fetched:.0f} s; first sound {first:.0f} s after `make demo`, its page after "
        f"{demo:.0f} s; make test {tests:.0f} s, {count} tests left out; first sound of the wheel's own model {stem:.0f} s "
        "after `p2p-dist generate`"
    )


def main(suites: Sequence[str]) -> None:
    """Try each machine, then say how long each took."""
    if os.geteuid() != 0:
        sys.exit("error: make fresh makes machines with debootstrap and chroot, which needs root: sudo make fresh")
    if shutil.which("debootstrap") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"], check=True)
    print("\n".join([try_out(Machine(suite)) for suite in suites]))


if __name__ == "__main__":
    main(sys.argv[1:] or ("bookworm", "trixie"))

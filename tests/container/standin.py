"""An image that stands in for LUMI's: Debian, and /opt/venv with torch and numpy, which its run script starts programs in.

    python standin.py ROOT

Debian comes from the packages that this machine has, torch and numpy from the environment that runs this: nothing is
downloaded. What LUMI's has beside them (ROCm, the network) is not there; torch computes on the CPU.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN = ("base-files", "bash", "coreutils", "dash", "findutils", "grep", "hostname", "sed", "tar", "gzip", "util-linux")
DEBIAN += ("python3-minimal", "python3-venv", "libstdc++6", "ca-certificates")
NOT_IMPORTED = {"..", "include", "test", "tests", "protoc", "protoc-3.13.0.0"}
"""What is left out of packages: a third of torch."""
LEFT_OUT = re.compile(
    r"/usr/share/(doc|man|locale|info|lintian|bug|zoneinfo|perl)/|/usr/lib/x86_64-linux-gnu/perl|/usr/share/perl"
)


def packages(names):
    """These packages of Debian and all that they depend on, as installed here."""
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\\t${Pre-Depends}, ${Depends}\\t${Provides}\\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    needs, provided = {}, {}
    for line in listed.splitlines():
        name, depends, provides = line.split("\t")
        needs[name] = [[re.split(r"[ (:]", one.strip())[0] for one in part.split("|")] for part in depends.split(",")]
        provided.update({re.split(r"[ (]", part.strip())[0]: name for part in provides.split(",")})
    found, ahead = set(), list(names)
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        for choice in needs[name]:
            ahead += [provided.get(one, one) for one in choice if provided.get(one, one) in needs][:1]
    return sorted(found - {"perl", "perl-base"})


def copy_debian(root):
    """Lay out the files of these packages as they lie here."""
    listed = subprocess.run(["dpkg-query", "-L", *packages(DEBIAN)], capture_output=True, text=True, check=True).stdout
    files = {line for line in listed.splitlines() if line.startswith("/") and line != "/." and not LEFT_OUT.search(line)}
    for name in ("bin", "sbin", "lib", "lib64"):  # one with those in /usr
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    real = {path for path in files if os.path.lexists(path) and (Path(path).is_symlink() or not Path(path).is_dir())}
    real |= {"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt"}
    copied = subprocess.run(
        ["tar", "-C", "/", "-cf", "-", "--no-recursion", "-T", "-"],
        input="\n".join(sorted(str(Path(path).parent.resolve() / Path(path).name)[1:] for path in real)).encode(),
        capture_output=True,
        check=True,
    ).stdout
    subprocess.run(["tar", "-C", root, "--keep-directory-symlink", "-xf", "-"], input=copied, check=True)
    for name in ("dev", "proc", "sys", "tmp", "root", "home", "mnt", "run", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    subprocess.run(["ldconfig", "-r", root], check=True)


def distributions(*names):
    """These packages of Python and all that they need, as this environment has them."""
    found, ahead = {}, list(names)
    while ahead:
        name = ahead.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for other systems or Pythons
        wanted = [one for one in found[name].requires or () if "extra ==" not in one]
        ahead += [re.split(r"[^A-Za-z0-9_.-]", one.split(";")[0].strip())[0] for one in wanted]
    return found.values()


def copy_torch(root):
    """Make /opt/venv, and lay torch and numpy into it."""
    subprocess.run(["chroot", root, "/usr/bin/python3", "-m", "venv", "/opt/venv"], check=True)
    (target,) = (root / "opt" / "venv" / "lib").glob("python*/site-packages")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if target.parent.name != version:
        sys.exit(
            f"error: Debian has {target.parent.name} here and this is {version}: run the tests in an environment of the former"
        )
    for path in target.glob("setuptools*"):  # that of Debian's venv is too old for torch
        shutil.rmtree(path)
    for distribution in distributions("torch", "numpy"):
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if source.is_file() and not NOT_IMPORTED & set(file.parts):
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / file)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    copy_debian(root)
    copy_torch(root)

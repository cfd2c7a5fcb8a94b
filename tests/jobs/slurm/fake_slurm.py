"""Commands that answer as those of Slurm."""

import os
import re
import sys

import pytest

from p2p_dist.cli import submit
from p2p_dist.run import provenance, snapshot

SBATCH = """#!/bin/sh
# Takes a job, unless its script has a line that is in the file `refused`.
cd {place} || exit 1
file=given
[ "$1" != --test-only ] || file=tested
cat > $file
env | grep -E '^(SLURM|SBATCH|SRUN|RANK|P2P_CPU)' > environment
if [ -e refused ] && grep -qE -f refused "$file"; then
    echo "sbatch: error: Batch job submission failed: no such thing" >&2
    exit 1
fi
[ "$1" != --test-only ] || exit 0
set -- script-*
[ -e "$1" ] || shift
number=$((100 + $#))
cp "$file" "script-$number"
comment="" partition=none elements=alone
while IFS= read -r line; do
    value=${{line#*=}}
    case "$line" in
    "#SBATCH --comment="*) comment=${{value#?}} comment=${{comment%?}} ;;
    "#SBATCH --partition="*) partition=$value ;;
    "#SBATCH --array="*-*) ;; # tasks that share a stage
    "#SBATCH --array="*) elements=${{value%%%*}} ;;
    esac
done <"$file"
IFS=,
for element in $elements; do
    [ "$element" = alone ] && name=$number || name=${{number}}_$element
    echo "$name|PENDING|Dependency|$comment|$partition" >> queue
done
echo "Submitted batch job $number"
"""
SQUEUE = """#!/bin/sh
case "$*" in
*%P*) cut -d '|' -f 5 {place}/queue ;;
*) cut -d '|' -f 1-4 {place}/queue ;;
esac
"""
SCONTROL = """#!/bin/sh
[ ! -e {place}/refuses ] || exit 1
[ "$1 $2" != "show config" ] || {{ cat {place}/config; exit 0; }}
echo "$@" >> {place}/told
"""


class Slurm:
    """The commands, and what they were told."""

    def __init__(self, place):
        self.place = place
        (place / "queue").touch()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("srun", "#!/bin/sh\n"), ("sinfo", "#!/bin/sh\n")):
            (place / name).write_text(text.format(place=place))
        (place / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {place}/cancelled\n')
        (place / "scontrol").write_text(SCONTROL.format(place=place))
        self.call("linux")
        for name in ("sbatch", "squeue", "srun", "sinfo", "scancel", "scontrol"):
            (place / name).chmod(0o755)

    def add(self, *lines):
        """Jobs that are queued: number|state|reason|comment|partition."""
        with (self.place / "queue").open("a") as queue:
            queue.writelines(f"{line}\n" for line in lines)

    def call(self, name):
        """Give the cluster another name."""
        about = (
            "Configuration data as of 2026-11-29T04:00:00",
            f"ClusterName             = {name}",
            "CommunicationParameters = (null)",
        )
        (self.place / "config").write_text("\n".join(about) + "\n")

    def refuse(self, pattern):
        """Refuse scripts with such a line."""
        (self.place / "refused").write_text(pattern + "\n")

    def queued(self):
        """[run, stage, what it waits for] of each job."""
        found = []
        for path in sorted(self.place.glob("script-*")):
            stage, run = re.search(r"--comment='p2p_dist (\S+) (.*)'", path.read_text()).groups()
            waits = re.search(r"--dependency=(\S+)", path.read_text())
            found.append((run.rsplit("/", 1)[-1], stage, waits.group(1) if waits else None))
        return found

    @property
    def environment(self):
        """What sbatch found in its environment."""
        return (self.place / "environment").read_text().split()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    place = tmp_path / "slurm"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "work" / "runs"))
    monkeypatch.setattr(sys, "argv", ["launch/submit.py"])
    # Nothing runs here, so no run needs its copy of the code.
    monkeypatch.setattr(snapshot, "copy_code", lambda target: None)
    monkeypatch.setattr(snapshot, "differs", lambda copy: False)
    monkeypatch.setattr(provenance, "gather", dict)
    for name in ("MUSDB_PATH", "SBATCH_ACCOUNT", "SLURM_CONF", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return Slurm(place)


@pytest.fixture
def launch(tmp_path):
    """`launch(...)`: what launch/submit.py does with songs that no job will open."""
    for split in ("train", "test"):
        (tmp_path / "songs" / split).mkdir(parents=True)
        (tmp_path / "songs" / split / "a.stem.mp4").write_bytes(b"x")
    base = ["--data", str(tmp_path / "songs"), "--preset", "tiny", "--cluster", "slurm"]
    return lambda *more: submit.main([*base, *more])


@pytest.fixture
def site_file(tmp_path):
    """`site_file(text)`: its path."""

    def write(text, name="mine"):
        (tmp_path / f"{name}.yaml").write_text(text)
        return str(tmp_path / f"{name}.yaml")

    return write


CHAIN = ["preprocess", "train", "evaluate", "page"]

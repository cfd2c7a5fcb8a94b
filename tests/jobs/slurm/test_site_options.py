"""What a site's file adds to the jobs: options, projects, flags, variables, the address at which processes meet."""

import os
import subprocess

import pytest

from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import rundir
from p2p_dist.settings import config
from tests.jobs.slurm.fake_slurm import cluster, launch, site_file
from tests.jobs.submit_command import place

__all__ = ["cluster", "launch", "place", "site_file"]

TYPED = """
tiers:
  - {partition: acc, qos: long, time: "2-00:00:00", nodes: 25, jobs: 7}
  - {kind: test, partition: acc, qos: debug, time: "0:30:00", nodes: 2}
  - {kind: cpu, partition: thin}
gpus_per_node: 4
memory_per_node: 400G
accounts: {gpu: "{account}@h100", cpu: "{account}@cpu", page: other}
sbatch:
  all: {mem: null, hint: nomultithread}
  gpu: {gres: "gpu:a100:{gpus}", gpus-per-node: null, constraint: "gpu&hbm80g"}
  cpu: {exclusive: true}
  evaluate: {hint: multithread, reservation: mine}
srun: [--gpu-bind=none, --cpu-bind=none]
variables: {NCCL_SOCKET_IFNAME: "ib0,ib1", FI_CXI_DISABLE: 1}
rendezvous: ipv4
rendezvous_suffix: i
container_runtime: apptainer
container_options: [--nv, --cleanenv]
"""


def made(file, *stages, **resources):
    """stage -> lines of its script."""
    settings = config.Config(resources=config.Resources(**{"account": "abc", "time": "10:00:00"} | resources))
    jobs = specs.jobs(
        rundir.find("r"), settings, site.load_site("slurm", file), stages or ("preprocess", "train", "evaluate", "page")
    )
    return {job.stage: job.script().splitlines() for job in jobs}


def test_options_are_added_replaced_and_dropped(place, site_file):
    """Typed GPUs, a QoS on every job, memory that must not be asked for, a constraint with a character of the shell's."""
    found = made(site_file(TYPED), nodes=2)
    options = {stage: {line[8:] for line in lines if line.startswith("#SBATCH ")} for stage, lines in found.items()}
    for stage, there in {
        "preprocess": ("--partition=thin", "--account=abc@cpu", "--exclusive", "--hint=nomultithread", "--cpus-per-task=8"),
        "train": ("--partition=acc", "--qos=long", "--account=abc@h100", "--gres=gpu:a100:4", "--constraint='gpu&hbm80g'"),
        "evaluate": ("--qos=long", "--gres=gpu:a100:1", "--hint=multithread", "--reservation=mine", "--nodes=1"),
        "page": ("--account=other", "--hint=nomultithread", "--time=10"),
    }.items():
        assert set(there) <= options[stage], stage
        assert not [line for line in options[stage] if line.startswith(("--mem", "--gpus-per-node"))]
    assert "--nodes=2" in options["train"] and not any("gres" in line for line in options["preprocess"])
    assert "--exclusive" not in options["train"]
    checked = made(site_file(TYPED), "preflight", time="0:10:00")["preflight"]
    assert {"#SBATCH --qos=debug", "#SBATCH --gres=gpu:a100:4"} <= set(checked)


def test_flags_and_variables_reach_the_job(place, site_file, tmp_path):
    found = made(site_file(TYPED), container=str(tmp_path / "i.sif"))
    for line in (
        "export P2P_SRUN='--gpu-bind=none --cpu-bind=none'",
        "export P2P_RENDEZVOUS=ipv4:i",
        "export P2P_RUNTIME=apptainer",
        "export P2P_RUNTIME_OPTIONS='--nv --cleanenv'",
        'export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-ib0,ib1}"',
    ):
        assert line in found["train"] and line in found["evaluate"]
    assert not [line for line in found["preprocess"] if "P2P_SRUN" in line]
    plain = made(None)["train"]
    assert not [line for line in plain if "P2P_SRUN" in line or "RENDEZVOUS" in line or "RUNTIME" in line]


def test_a_project_is_named_once(place, site_file):
    with pytest.raises(ValueError, match=r"--account abc@h100: the site's file adds @h100 itself, name abc$"):
        made(site_file(TYPED), account="abc@h100")
    alone = made(site_file(TYPED), account=None)
    assert not [line for line in alone["train"] if "--account" in line] and "#SBATCH --account=other" in alone["page"]


BAD = [
    ("sbatch: {train: {job-name: x}}", "must be a long option of sbatch"),
    *(
        (f"sbatch: {{train: {{{name}: x}}}}", "must be a long option of sbatch")
        for name in ("wrap", "output", "outp", "N", "-q", "a b")
    ),
    ('sbatch: {train: {qos: "a\\nb"}}', "must be text without control characters"),
    ('sbatch: {train: {qos: ""}}', "must be text without control characters"),
    ("sbatch: {training: {qos: x}}", "must be one of all, gpu, cpu"),
    ("sbatch: {train: x}", "must be a list of names and values"),
    *(
        (f"srun: ['{flag}']", "must be a flag of srun")
        for flag in ("--task-prolog=/x", "--task-prol=/x", "--output=x", "-c7", "--a b", "--a=$(x)")
    ),
    ("container_options: ['--bind /x']", "must be a flag, as --nv"),
    *(
        (f"variables: {{{name}: x}}", "must be a variable of the network")
        for name in ("LD_PRELOAD", "PATH", "P2P_PYTHON", "nccl_x")
    ),
    *((f"variables: {{NCCL_X: '{value}'}}", "no path") for value in ("/x.so", "$(x)", "a b", '"', "`x`")),
    ("accounts: {cpu: '{name}'}", "must be a project, or a rule"),
    ("rendezvous: ip", "must be one of name, ipv4"),
    ("rendezvous_suffix: ';x'", "rendezvous_suffix must be letters"),
    ("container_runtime: docker", "must be one of singularity, apptainer, none"),
    ("container: i.sif\ncontainer_runtime: none", "container names an image, and container_runtime is none"),
    ("architecture: arm", "must be one of x86_64, aarch64"),
    ("checked: yesterday", "must be a date, as 2026-11-27"),
    ("cpu_masks: ['0x2']\nsrun: [--cpu-bind=none]", "both bind processes to cores"),
    ("tiers: [{partition: a}]\npartition: b", "remove partition, cpu_partition and limits"),
    ("tiers: [{partition: a}]\nlimits: {a: {nodes: 2}}", "remove partition, cpu_partition and limits"),
    ("tiers: [{kind: cpu, partition: a}]", "none of kind gpu"),
    ("tiers: [{partition: 'a b'}]", "'a b' is not the name of a partition"),
    ('tiers: [{qos: "a\\x1b"}]', "tiers.1.qos must be non-empty text without control characters"),
    ("cpu_cluster: '$(x)'", "is not the name of a partition, a QoS or a cluster"),
    ("tiers: [{partition: a, hours: 3}]", "unknown setting tiers.1.hours; there are kind, partition"),
    ("tiers: [{partition: a}, {nodes: '2'}]", "tiers.2.nodes must be a whole number without quotes"),
    ("tiers: [{nodes: null}]", "tiers.1.nodes must not be null"),
    ("tiers: [3]", "tiers.1 must be a list of names and values"),
    ("tiers: {a: 3}", "tiers must be a list, as"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_what_a_site_must_not_say_is_refused(text, said, site_file):
    """A site's file may come from others: it names no code, and no option that changes what a job is."""
    with pytest.raises(ValueError, match=r"mine\.yaml: ") as refused:
        site.load_site("slurm", site_file(text))
    assert said in str(refused.value) and "\n" not in str(refused.value) and "\x1b" not in str(refused.value)


def test_a_file_of_shell_lines_that_others_can_write_is_not_run(site_file, tmp_path):
    file, lines = site_file("environment: lines.sh"), tmp_path / "lines.sh"
    lines.write_text("export A=1\n")
    lines.chmod(0o644)
    assert site.load_site("slurm", file).environment == str(lines)
    for path, mode in ((lines, 0o666), (tmp_path, 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(
            ValueError, match=r"environment .* is writable by everybody, so another user could change what jobs"
        ):
            site.load_site("slurm", file)
        path.chmod(before)
    for name in (str(lines), os.path.relpath(lines, site.HPC), os.path.relpath(lines, tmp_path)):
        lines.chmod(0o666)
        with pytest.raises(ValueError, match=r"environment .* (is writable by everybody|there is no such file)"):
            site.load_site("slurm", site_file(f"environment: {name}"))
        lines.chmod(0o644)
    lines.rename(tmp_path / "real.sh")
    lines.symlink_to(tmp_path / "real.sh")
    assert site.load_site("slurm", file).environment == str(lines), "a link of one's own"
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "lines.sh").symlink_to(lines)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ValueError, match="open is writable by everybody"):  # others could make the link lead elsewhere
        site.load_site("slurm", site_file(f"environment: {tmp_path}/open/lines.sh"))
    if os.geteuid() == 0:
        os.lchown(lines, 12345, -1)
        file = site_file("environment: lines.sh")
        with pytest.raises(ValueError, match="is a link of another user's"):
            site.load_site("slurm", file)
        os.lchown(lines, 0, -1)
        os.chown(tmp_path / "real.sh", 12345, -1)
        with pytest.raises(ValueError, match="belongs to user 12345, not to root"):
            site.load_site("slurm", file)


def test_a_site_without_container_takes_none(site_file, tmp_path):
    place = site.load_site("slurm", site_file("container_runtime: none"))
    with pytest.raises(ValueError, match="neither Singularity nor Apptainer"):
        place.check_images(config.Resources(container=str(tmp_path)))
    place.check_images(config.Resources())


def test_the_limits_of_a_qos_count_the_jobs_in_it(cluster, launch, site_file):
    mine = site_file(TYPED)
    cluster.add(*(f"{number}|RUNNING|None|other|acc long" for number in range(5)), "9|RUNNING|None|other|acc debug")
    asked = ("--site", mine, "--time", "10:00:00", "--account", "abc")
    assert launch(*asked, "--run", "a") == 0, "5 and a training and an evaluation are 7"
    with pytest.raises(ValueError, match="8 jobs of yours would be in long, which takes 7"):
        cluster.add("10|RUNNING|None|other|acc long")
        (cluster.place / "queue").write_text(
            "".join(line for line in (cluster.place / "queue").read_text().splitlines(True) if "p2p" not in line)
        )
        launch(*asked, "--run", "b")
    with pytest.raises(ValueError, match=r"--nodes 32: a job in long has at most 25; nothing was queued"):
        launch(*asked, "--run", "b", "--nodes", "32", "--train.global-batch-size", "128")


def test_a_refusal_names_what_the_file_adds(cluster, launch, site_file):
    cluster.refuse("^#SBATCH --constraint=")
    with pytest.raises(ValueError, match=r"without --constraint='gpu&hbm80g': change the site's file \(sbatch: constraint\)"):
        launch("--site", site_file(TYPED), "--time", "10:00:00", "--account", "abc")
    cluster.refuse("^#SBATCH --qos=")
    with pytest.raises(ValueError, match=r"without --qos=long: change the site's file \(tiers or sbatch: qos\)"):
        launch("--site", site_file(TYPED), "--time", "10:00:00", "--account", "abc")


@pytest.mark.parametrize(
    ("rule", "addresses", "slurm", "met"),
    [
        ("name:", "10.0.0.7", "10.1.0.7", "node1"),
        ("name:i", "10.0.0.7", "10.1.0.7", "node1i"),
        ("ipv4:", "10.0.0.7", "10.1.0.7", "10.0.0.7"),
        ("ipv4:i", "10.0.0.7", "10.1.0.7", "10.0.0.7"),
        ("ipv4:", "127.0.1.1", "10.1.0.7", "10.1.0.7"),
        ("ipv4:", "127.0.1.1", "127.0.0.1", "node1"),
        ("ipv4:", "", "node1", "node1"),
    ],
)
def test_where_processes_meet(rule, addresses, slurm, met, tmp_path):
    """JUPITER: the first node's own short name is its loopback address there, where no other node finds it."""
    scontrol = f'case "$2" in hostnames) echo node1; echo node2 ;; node) echo "  NodeAddr={slurm} NodeHostName=node1" ;; esac'
    getent = f'echo "$2" >> "{tmp_path}/asked"; [ -z "{addresses}" ] || echo "{addresses} STREAM $2"; [ -n "{addresses}" ]'
    for name, text in (("scontrol", scontrol), ("getent", getent)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]"}
    command = ["bash", str(site.HPC / "rendezvous.sh"), rule]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{met}\n", "")
    if rule.startswith("ipv4"):
        assert (tmp_path / "asked").read_text() == f"node1{rule[5:]}\n"


def test_the_container_is_started_as_the_site_says(tmp_path):
    for name in ("apptainer", "singularity"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"; env | grep -E "^SINGULARITYENV" | sort\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "i.sif").write_text("SIF!")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "P2P_CONTAINER": str(tmp_path / "i.sif")}
    environment |= {"GLOO_SOCKET_IFNAME": "ib0", "CUDA_VISIBLE_DEVICES": "0,1", "CUDA_HOME": "/host", "TORCH_HOME": "/host"}

    def started(**more):
        command = ["bash", str(site.HPC / "in_container.sh"), "python", "x y"]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True).stdout.splitlines()

    said = started(P2P_RUNTIME="apptainer", P2P_RUNTIME_OPTIONS="--nv --cleanenv")
    assert said[0] == f"apptainer --quiet run --nv --cleanenv {tmp_path}/i.sif python x y"
    assert {"SINGULARITYENV_GLOO_SOCKET_IFNAME=ib0", "SINGULARITYENV_CUDA_VISIBLE_DEVICES=0,1"} <= set(said)
    assert not [line for line in said if "/host" in line], "paths of this machine are none inside"
    assert started()[0] == f"singularity --quiet run {tmp_path}/i.sif python x y"

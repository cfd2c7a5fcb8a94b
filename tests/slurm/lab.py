"""A real Slurm on this machine: munge, MariaDB, slurmdbd, slurmctld and N slurmd that play nodes of a GPU cluster.

Everything listens on 127.0.0.1 only, on ports of its own, keeps its files in one folder, and ends with the process that
started it. Each node has its own host name, /etc/hosts and process numbers (namespaces), so that losing one is losing
all of its processes at once. Cores are not bound (there are fewer than a node claims to have).
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from p2p_dist.common import files, linux
from p2p_dist.data import manifest

ACCOUNT = "project_465000001"
PORTS = {"slurmctld": 0, "slurmdbd": 1, "mariadb": 2, "node": 10}

SLURM_CONF = """
ClusterName=lab
SlurmctldHost=slurmctl(127.0.0.1)
SlurmctldPort={slurmctld}
FirstJobId={first_job}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={lab}/run/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool/%n
SlurmctldPidFile={lab}/run/slurmctld.pid
SlurmdPidFile={lab}/run/slurmd.%n.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdLogFile={lab}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
# For munge this "password" is the socket; slurmdbd's clients ignore AuthInfo.
AccountingStoragePass={lab}/run/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations
AccountingStoreFlags=job_comment
EnforcePartLimits=ALL
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,batch_sched_delay=0,sched_min_interval=0,sched_interval=2,nohold_on_prolog_fail
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PriorityType=priority/multifactor
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SlurmctldParameters={controller}
SlurmdParameters=config_overrides
# Generous where a busy machine answers late: a test that loses a node says so itself.
SlurmctldTimeout=60
SlurmdTimeout=120
KillWait=10
Epilog={lab}/etc/epilog
MinJobAge=900
MessageTimeout=30
UnkillableStepTimeout=60
ReturnToService=2
InactiveLimit=0
CompleteWait=0
TCPTimeout=5
# As LUMI-G: 64 cores of which 8 are reserved, 8 GPU dies, 480 GiB.
GresTypes=gpu
NodeName=DEFAULT SocketsPerBoard=1 CoresPerSocket=64 ThreadsPerCore=2 CoreSpecCount=8 RealMemory=491520 Gres=gpu:mi250:8
{nodes}
PartitionName=DEFAULT Nodes=ALL State=UP MaxTime=2-00:00:00 DefaultTime=10 DefMemPerCPU=1024
PartitionName=standard-g OverSubscribe=EXCLUSIVE PriorityTier=10 PreemptMode=OFF
PartitionName=small-g PriorityTier=10 PreemptMode=OFF
PartitionName=dev-g PriorityTier=10 PreemptMode=OFF MaxTime=03:00:00
PartitionName=small PriorityTier=10 PreemptMode=OFF Default=YES
{low}
PartitionName=high PriorityTier=100 PreemptMode=OFF
# Takes jobs and starts none.
PartitionName=waiting PriorityTier=10 PreemptMode=OFF State=DOWN
"""

# What a site cleans up behind a job; meanwhile Slurm calls the job COMPLETING.
EPILOG = """#!/bin/sh
[ ! -e {lab}/etc/slow-epilog ] || sleep 15
"""

DBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={lab}/run/munge.sock
DbdHost=slurmctl
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
LogFile={lab}/log/slurmdbd.log
PidFile={lab}/run/slurmdbd.pid
CommunicationParameters=NoInAddrAny
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=1
"""

INIT_SQL = """
CREATE DATABASE slurm_acct_db;
CREATE USER 'slurm'@'%' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'%';
"""

# First process of a node. It starts slurmd anew when told to: killing slurmd alone leaves the node's tasks alive.
NODE = """
hostname "$1"; mount --bind "$2/etc/hosts" /etc/hosts
while :; do
    slurmd -D -s -N "$1" & echo $! > "$2/run/$1.inner"; wait $!
    until [ -e "$2/run/$1.start" ]; do sleep 0.2; done; rm -f "$2/run/$1.start"
done
"""
HOST = 'hostname "$1"; mount --bind "$2/etc/hosts" /etc/hosts; shift 2; exec "$@"'
CONTROL_HOST = ["unshare", "-m", "-u", "bash", "-c", HOST, "_", "slurmctl"]


def wait_until(done, seconds, what):
    """Ask `done()` until it answers something true, which is returned; AssertionError with `what()` after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        if answer := done():
            return answer
        assert time.monotonic() < end, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.2)


def lay_out_shards(folder):
    """A preprocessed dataset that nothing opens: for jobs that do not learn."""
    shard = {"name": "a.tar", "bytes": 1, "sha256": "0" * 64, "samples": 32}
    rows = [[f"a-{n:05d}", shard["name"], 0, 0, 0] for n in range(32)]
    part = {"songs": [], "shards": [shard], "audio": [], "samples": rows}
    about = {"settings": {}, "settings_digest": "", "dtype": "<f2", "shape": [1, 32, 32], "left_out": []}
    content = {"schema": manifest.SCHEMA, **about, "splits": {"train": part}}
    files.write_json(folder / manifest.NAME, files.sealed(content))
    (folder / "a.tar").write_bytes(b"x")


class Lab:
    """Start with `up()`, stop with `down()`. Where it runs, $SLURM_CONF names its configuration."""

    def __init__(self, nodes):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-lab-", dir="/tmp"))  # sockets need a short path
        self.names = [f"nid{5000 + i:06d}" for i in range(1, nodes + 1)]
        self.daemons = {}
        # Two clusters may run side by side (pytest -n 2): with ports of their own, and job numbers, from which the ports of
        # trainings follow (hpc/job.sh): 20000 to 24000 for the first cluster, 28800 to 32000 for the second.
        second = os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0"
        self.first_job, ports = (801, range(26400, 28600, 200)) if second else (1, range(24200, 26200, 200))
        base = next(b for b in ports if all(_is_free(b + n) for n in range(PORTS["node"] + nodes + 1)))
        self.ports = {name: base + offset for name, offset in PORTS.items()}

    def up(self):
        """Boot everything; returns when all nodes are idle."""
        for name in ("etc", "run", "log", "state", "spool", "dev", "tmp"):
            (self.folder / name).mkdir()
        self._configure()
        os.environ["SLURM_CONF"] = str(self.folder / "etc" / "slurm.conf")
        run, log = self.folder / "run", self.folder / "log"
        key = self.folder / "etc" / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        database = self.folder / "db"
        # A MariaDB that starts removes every temporary table in its temporary folder: in /tmp those of the other cluster too.
        place = ["--no-defaults", "--user=root", f"--datadir={database}", f"--tmpdir={self.folder / 'tmp'}"]
        install = ["mariadb-install-db", *place, "--skip-test-db"]
        installing = subprocess.Popen(install, stdout=(log / "install-db").open("w"), stderr=subprocess.STDOUT)
        munged = ["munged", "--force", "--foreground", f"--key-file={key}", f"--socket={run}/munge.sock", "--num-threads=4"]
        self._start("munged", [*munged, f"--pid-file={run}/munged", f"--log-file={log}/munged.log", f"--seed-file={run}/seed"])
        assert installing.wait() == 0, (log / "install-db").read_text()
        mariadbd = ["mariadbd", *place, f"--socket={run}/mysql.sock"]
        mariadbd += [f"--pid-file={run}/mariadbd", "--bind-address=127.0.0.1", f"--port={self.ports['mariadb']}"]
        mariadbd += ["--skip-name-resolve", f"--init-file={self.folder}/etc/init.sql", f"--log-error={log}/mariadbd.log"]
        mariadbd += ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"]
        self._start("mariadbd", [*mariadbd, "--innodb-doublewrite=0", "--innodb-flush-method=nosync", "--skip-log-bin"])
        self._wait(["munge", "-S", f"{run}/munge.sock", "-n"], 30)
        client = ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.ports['mariadb']}", "-uslurm", "-pslurm"]
        self._wait([*client, "-e", "select 1", "slurm_acct_db"], 60)
        self.start_accounting()
        self._wait(["sacctmgr", "-n", "list", "cluster"], 60)
        for words in ("cluster lab", f"account {ACCOUNT} Description=lab Organization=lab", f"user root Account={ACCOUNT}"):
            self.ask("sacctmgr", "-iQ", "add", *words.split())
        self.start_controller()
        for name in self.names:
            self._start_node(name)
        idle = ("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D")
        wait_until(lambda: self.ask(*idle).strip() == str(len(self.names) or ""), 60, lambda: self.ask("sinfo", "-N"))

    def down(self):
        """Stop everything, tasks of jobs first, and remove the folder."""
        for name in [*self.names, "slurmctld", "slurmdbd", "mariadbd", "munged"]:
            self.stop(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, name, seconds=10):
        """Stop one daemon, by its own process id; a node at once with all that runs on it."""
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        if name not in self.names:
            daemon.terminate()
            try:
                daemon.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                pass
        daemon.kill()
        daemon.wait()

    def start_controller(self):
        """Start slurmctld and wait until it answers."""
        self._start("slurmctld", [*CONTROL_HOST, str(self.folder), "slurmctld", "-D"])
        self._wait(["scontrol", "ping"], 60, "UP")

    def start_accounting(self):
        """Start slurmdbd."""
        self._start("slurmdbd", [*CONTROL_HOST, str(self.folder), "slurmdbd", "-D"])

    def kill_slurmd(self, name):
        """Kill a node's daemon and leave the tasks alive; the controller is told what it would find out by itself."""
        inner = int((self.folder / "run" / f"{name}.inner").read_text())
        node = self.daemons[name].pid
        for path in Path("/proc").glob("[0-9]*/status"):
            try:
                text = path.read_text()
            except OSError:
                continue
            ids = next(line for line in text.splitlines() if line.startswith("NSpid:")).split()[1:]
            same = len(ids) > 1 and int(ids[-1]) == inner and "Name:\tslurmd\n" in text
            if same and _is_below(int(ids[0]), node):
                os.kill(int(ids[0]), signal.SIGKILL)
                break
        else:
            raise AssertionError(f"no slurmd on {name}")
        self.ask("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def lose(self, name):
        """A node without power: all its processes at once."""
        self.stop(name)
        self.ask("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def return_node(self, name):
        """Bring a node back after `kill_slurmd` or `lose`."""
        if name in self.daemons:
            (self.folder / "run" / f"{name}.start").touch()
        else:
            self._start_node(name)
        state = ("sinfo", "-h", "-p", "low", "-n", name, "-o", "%t")
        serves = ("idle", "plnd", "mix", "alloc")  # another job may have it at once
        wait_until(lambda: self.ask(*state).strip() in serves, 60, lambda: f"{name} back: {self.ask(*state)}")

    def settle(self):
        """Wait until no job is being launched: a slurmctld that starts or configures itself anew takes such a one for lost."""
        young = re.compile(r"RUNNING 0:0[0-2] .*|CONFIGURING .*|PENDING .* (None|Priority|Resources)")
        states = ("squeue", "--noheader", "--format=%T %M %r")
        wait_until(lambda: not any(map(young.fullmatch, self.ask(*states).splitlines())), 60, lambda: self.ask(*states))

    def configure(self, controller):
        """Change SlurmctldParameters of the running cluster."""
        self.settle()
        self._configure(controller)
        self.ask("scontrol", "reconfigure")

    def ask(self, *command, check=True):
        """Run a command of Slurm; its output."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number):
        """What `scontrol show job` says, as a dictionary; empty where the controller is away."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", str(number), check=False)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def release(self, number):
        """Skip the two minutes that Slurm lets pass before it starts a requeued job."""
        job = self.job(number)
        if job.get("JobState") != "PENDING" or job["Reason"] != "BeginTime":
            return
        # Not in the same second: Slurm 22.05 then takes the end of the killed batch shell for that of the new one.
        if time.time() - time.mktime(time.strptime(job["SubmitTime"], "%Y-%m-%dT%H:%M:%S")) > 4:
            self.ask("scontrol", "update", f"jobid={number}", "StartTime=now", check=False)

    def wait_for(self, number, seconds, *states):
        """Wait until the job is in one of `states`; what is known of it then."""

        def reached():
            self.release(number)
            job = self.job(number)
            return job if job.get("JobState") in states else None

        return wait_until(reached, seconds, lambda: json.dumps(self.job(number), indent=1))

    @contextlib.contextmanager
    def slow_epilog(self):
        """Each job that ends meanwhile takes 15 s more."""
        path = self.folder / "etc" / "slow-epilog"
        path.touch()
        try:
            yield
        finally:
            path.unlink()

    def _configure(self, controller="preempt_send_user_signal"):
        names = "\n".join(
            f"NodeName={n} NodeHostname={n} NodeAddr=127.0.0.1 Port={self.ports['node'] + i}" for i, n in enumerate(self.names)
        )
        low = "PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 OverSubscribe=EXCLUSIVE"
        # An empty SlurmctldParameters is refused by every client.
        values = {
            **self.ports,
            "first_job": self.first_job,
            "lab": self.folder,
            "nodes": names,
            "low": low,
            "controller": controller or "disable_triggers",
        }
        etc = self.folder / "etc"
        files.write_text(etc / "slurm.conf", SLURM_CONF.format(**values))  # whole: every command of a job reads it
        (etc / "epilog").write_text(EPILOG.format(**values))
        (etc / "epilog").chmod(0o755)
        (etc / "slurmdbd.conf").write_text(DBD_CONF.format(**values))
        (etc / "slurmdbd.conf").chmod(0o600)
        (etc / "init.sql").write_text(INIT_SQL)
        addresses = "".join(f"127.0.0.1 {name}\n" for name in self.names)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 slurmctl {socket.gethostname()}\n{addresses}")
        for i in range(8):  # must be devices; nothing opens them
            (self.folder / "dev" / f"gpu{i}").unlink(missing_ok=True)
            (self.folder / "dev" / f"gpu{i}").symlink_to("/dev/null")
        gpus = f"Name=gpu Type=mi250 File={self.folder}/dev/gpu[0-7] Flags=amd_gpu_env"
        (etc / "gres.conf").write_text(f"AutoDetect=off\n{gpus}\n")

    def _start_node(self, name):
        (self.folder / "spool" / name).mkdir(exist_ok=True)
        spaces = ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc"]
        self._start(name, [*spaces, "bash", "-c", NODE, "_", name, str(self.folder)])

    def _start(self, name, command):
        log = (self.folder / "log" / f"{name}.out").open("a")
        detached = {"stdin": subprocess.DEVNULL, "start_new_session": True, "preexec_fn": linux.die_with_parent}
        self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, **detached)

    def _wait(self, command, seconds, text=""):
        def answers():
            done = subprocess.run(command, capture_output=True, text=True)
            return done.returncode == 0 and text in done.stdout

        wait_until(answers, seconds, lambda: "\n".join(p.read_text()[-2000:] for p in (self.folder / "log").iterdir()))


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _is_below(process, ancestor):
    while process > 1:
        if process == ancestor:
            return True
        process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False

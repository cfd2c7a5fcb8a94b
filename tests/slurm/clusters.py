"""A real Slurm controller with the nodes, partitions, QoS, features and GPU types of the clusters in hpc/sites.

They are written here by hand from what is known of each cluster, not read from the files that they test. The nodes are cloud
nodes, which Slurm takes for available and starts only for a job: `sbatch --test-only` looks at all that a job requests, and
nothing runs. Two clusters have partitions of the same name as others, so they come in a second configuration.
"""

import re
import subprocess

from lab import SLURM_CONF, Lab

HEAD = SLURM_CONF.split("GresTypes=gpu")[0].replace("Enforce=associations", "Enforce=associations,limits,qos")

FIRST = """
# LUMI-G and LUMI-C
NodeName=lumi[1-1200] CoresPerSocket=64 ThreadsPerCore=2 CoreSpecCount=8 RealMemory=491520 Gres=gpu:mi250:8
NodeName=lumic[1-10] CoresPerSocket=128 RealMemory=229376
PartitionName=standard-g Nodes=lumi[1-1200] OverSubscribe=EXCLUSIVE MaxTime=2-00:00:00 MaxNodes=1024
PartitionName=small-g Nodes=lumi[1-1200] MaxTime=3-00:00:00 MaxNodes=4
PartitionName=dev-g Nodes=lumi[1-1200] MaxTime=3:00:00 MaxNodes=32
PartitionName=small Nodes=lumic[1-10] MaxTime=3-00:00:00 MaxNodes=4
# Frontier. No partition has its limits of time by nodes, nor has the QoS debug those of another cluster
NodeName=frontier[1-300] CoresPerSocket=64 CoreSpecCount=8 RealMemory=512000 Gres=gpu:8
PartitionName=batch Nodes=frontier[1-300] OverSubscribe=EXCLUSIVE MaxTime=12:00:00
PartitionName=extended Nodes=frontier[1-300] OverSubscribe=EXCLUSIVE MaxTime=24:00:00 MaxNodes=64
# Leonardo
NodeName=lrd[1-300] CoresPerSocket=32 RealMemory=494000 Gres=gpu:a100:4
NodeName=dcgp[1-20] CoresPerSocket=112 RealMemory=512000
PartitionName=boost_usr_prod Nodes=lrd[1-300] MaxTime=4-00:00:00 QOS=leonardo
PartitionName=dcgp_usr_prod Nodes=dcgp[1-20] MaxTime=24:00:00 MaxNodes=16
# MareNostrum 5
NodeName=as[1-110] CoresPerSocket=80 RealMemory=512000 Gres=gpu:h100:4
NodeName=gs[1-10] CoresPerSocket=112 RealMemory=256000
PartitionName=acc Nodes=as[1-110] MaxTime=72:00:00 AllowQos=acc_ehpc,acc_debug
PartitionName=gpp Nodes=gs[1-10] MaxTime=72:00:00 AllowQos=gp_ehpc
# JUWELS Booster
NodeName=jwb[1-400] CoresPerSocket=48 ThreadsPerCore=2 RealMemory=512000 Gres=gpu:a100:4
PartitionName=booster Nodes=jwb[1-400] OverSubscribe=EXCLUSIVE MaxTime=24:00:00 MaxNodes=256
PartitionName=develbooster Nodes=jwb[1-10] OverSubscribe=EXCLUSIVE MaxTime=2:00:00
# Perlmutter, and Jean Zay's H100: no partition is named, a feature selects the nodes
NodeName=perl[1-100] CoresPerSocket=64 ThreadsPerCore=2 RealMemory=256000 Gres=gpu:a100:4 Feature=gpu,hbm40g
NodeName=perlc[1-10] CoresPerSocket=128 ThreadsPerCore=2 RealMemory=512000 Feature=cpu
NodeName=jzh[1-130] CoresPerSocket=96 RealMemory=512000 Gres=gpu:h100:4 Feature=h100
NodeName=jzc[1-10] CoresPerSocket=40 RealMemory=192000
PartitionName=any Nodes=perl[1-100],perlc[1-10],jzh[1-130] MaxTime=100:00:00 Default=YES
PartitionName=cpu_p1 Nodes=jzc[1-10] MaxTime=100:00:00
# Karolina
NodeName=karolina[1-72] CoresPerSocket=128 RealMemory=1024000 Gres=gpu:a100:8
NodeName=kcn[1-10] CoresPerSocket=128 RealMemory=256000
PartitionName=qgpu Nodes=karolina[1-72] MaxTime=48:00:00 DefaultTime=24:00:00 MaxNodes=16
PartitionName=qgpu_big Nodes=karolina[1-72] MaxTime=48:00:00 MinNodes=17
PartitionName=qgpu_exp Nodes=karolina[1-72] MaxTime=1:00:00 MaxNodes=8
PartitionName=qcpu Nodes=kcn[1-10] OverSubscribe=EXCLUSIVE MaxTime=48:00:00 DefaultTime=24:00:00
# Snellius
NodeName=gcn[1-88] CoresPerSocket=64 RealMemory=737280 Gres=gpu:h100:4
NodeName=tcn[1-10] CoresPerSocket=128 RealMemory=229376
PartitionName=gpu_h100 Nodes=gcn[1-88] MaxTime=120:00:00
PartitionName=rome Nodes=tcn[1-10] MaxTime=120:00:00
# Daint
NodeName=nid[1-200] CoresPerSocket=288 RealMemory=850000 Gres=gpu:gh200:4
PartitionName=normal Nodes=nid[1-200] OverSubscribe=EXCLUSIVE MaxTime=24:00:00
PartitionName=debug Nodes=nid[1-200] OverSubscribe=EXCLUSIVE MaxTime=0:30:00 MaxNodes=2
"""
SECOND = """
# Roihu
NodeName=rg[1-20] CoresPerSocket=288 RealMemory=888832 Gres=gpu:gh200:4
NodeName=rc[1-10] CoresPerSocket=384 RealMemory=768000
PartitionName=gpumedium Nodes=rg[1-20] MaxTime=36:00:00 MaxNodes=4 QOS=roihu_medium Default=YES
PartitionName=gpularge Nodes=rg[1-20] MaxTime=36:00:00 MaxNodes=10 QOS=roihu_large
PartitionName=gputest Nodes=rg[1-20] MaxTime=0:15:00 MaxNodes=2
PartitionName=small Nodes=rc[1-10] MaxTime=72:00:00 MaxNodes=1
# JUPITER
NodeName=jpbo[1-200] CoresPerSocket=288 RealMemory=878535 Gres=gpu:gh200:4
PartitionName=booster Nodes=jpbo[1-200] OverSubscribe=EXCLUSIVE MaxTime=12:00:00 DefaultTime=1:00:00
"""
QOS = """
leonardo MaxWall=24:00:00 MaxTRESPerJob=node=64
boost_qos_dbg MaxWall=0:30:00 MaxTRESPerJob=node=2 MaxSubmitJobsPerUser=2
boost_qos_bprod MaxWall=24:00:00 MaxTRESPerJob=node=256 MinTRESPerJob=node=65
boost_qos_lprod MaxWall=4-00:00:00 MaxTRESPerJob=node=3
acc_ehpc MaxWall=72:00:00 MaxTRESPerJob=node=100
acc_debug MaxWall=2:00:00 MaxTRESPerJob=node=8
gp_ehpc MaxWall=72:00:00 MaxTRESPerJob=node=800
regular MaxWall=48:00:00 MaxSubmitJobsPerUser=5000
debug MaxWall=0:30:00 MaxTRESPerJob=node=8 MaxSubmitJobsPerUser=5
shared MaxWall=48:00:00 MaxTRESPerJob=node=1,gres/gpu=2
qos_gpu_h100-t3 MaxWall=20:00:00 MaxTRESPerJob=gres/gpu=512 MaxSubmitJobsPerUser=10000
qos_gpu_h100-dev MaxWall=2:00:00 MaxTRESPerJob=gres/gpu=32 MaxSubmitJobsPerUser=10
qos_gpu_h100-t4 MaxWall=100:00:00 MaxTRESPerJob=gres/gpu=64 MaxSubmitJobsPerUser=1000
roihu_medium MaxTRESPerJob=gres/gpu=4
roihu_large MinTRESPerJob=gres/gpu=4
"""
ACCOUNTS = ("abc", "abc@h100", "abc@cpu")


class Clusters(Lab):
    """All clusters of the first configuration; `switch()` to the second."""

    def __init__(self):
        super().__init__(nodes=0)
        self.text = FIRST.replace(" QOS=leonardo", "")  # a QoS must be there before a partition names it

    def up(self):
        super().up()
        lines = QOS.strip().splitlines()
        every, accounts = ",".join(["normal", *(line.split()[0] for line in lines)]), ",".join(ACCOUNTS)
        typed = [f"add account name={accounts} Description=lab Organization=lab", f"add user root account={accounts}"]
        typed += [f"add qos {line} Flags=DenyOnLimit,OverPartQOS" for line in lines]
        typed += [f"modify user root set qos={every}", "exit"]
        told = subprocess.run(["sacctmgr", "-iQ"], input="\n".join(typed), capture_output=True, text=True, timeout=60)
        assert told.returncode == 0 and "rror" not in told.stderr, told.stdout + told.stderr
        self.text = FIRST
        self._configure()
        self.ask("scontrol", "reconfigure")

    def switch(self):
        """Start the controller with the other configuration."""
        self.stop("slurmctld")
        self.text = SECOND
        self._configure()
        self.start_controller()

    def _configure(self, controller=""):
        super()._configure(controller)
        values = {**self.ports, "first_job": self.first_job, "lab": self.folder, "controller": "disable_triggers"}
        cloud = "GresTypes=gpu\nSuspendProgram=/bin/true\nResumeProgram=/bin/true\nSuspendTime=3600\n"
        cloud += "NodeName=DEFAULT Sockets=1 State=CLOUD\nPartitionName=DEFAULT State=UP\n"
        at = rf"\1 NodeAddr=127.0.0.1 Port={self.ports['node']}"
        nodes = re.sub(r"^(NodeName=\S+)", at, self.text, flags=re.MULTILINE)
        (self.folder / "etc" / "slurm.conf").write_text(HEAD.format(**values) + cloud + nodes)
        (self.folder / "etc" / "gres.conf").write_text("AutoDetect=off\n")

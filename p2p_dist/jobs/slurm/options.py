"""What a site's file may add to the commands of jobs: options of sbatch, srun and the container runtime, and variables.

A site's file may come from others, so each name and value is checked, and nothing in it is run as code.
"""

from __future__ import annotations

import re
from typing import Annotated

from p2p_dist.common import console
from p2p_dist.jobs import stages
from p2p_dist.settings.values import Rule

OF_THE_LAUNCHER = (
    *("job-name", "comment", "output", "error", "input", "open-mode", "array", "dependency", "kill-on-invalid-dep"),
    *("signal", "requeue", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "time", "account", "partition", "chdir"),
    *("wrap", "export", "export-file", "get-user-env", "bcast", "wait", "hold", "begin", "deadline", "parsable", "test-only"),
    *("clusters", "uid", "gid", "help", "usage", "version", "quiet", "verbose", "ignore-pbs"),
)
"""Options of sbatch that the launcher sets, that other entries of the site's file set, or that change what a script means."""

OF_THE_STEP = (
    *("unbuffered", "kill-on-bad-exit", "wait", "output", "error", "input", "label", "nodes", "ntasks", "ntasks-per-node"),
    *("prolog", "epilog", "task-prolog", "task-epilog", "multi-prog", "bcast", "send-libs", "chdir", "export", "pty"),
    *("jobid", "het-group", "test-only", "immediate", "time", "relative", "preserve-env", "propagate", "uid", "gid"),
    *("comment", "job-name", "dependency", "account", "partition", "async", "no-kill", "quit-on-interrupt", "x11"),
)
"""Options of srun that hpc/job.sh sets, that run further programs, or that change which processes run."""

_OPTION = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_FLAG = re.compile(rf"--({_OPTION})(=[A-Za-z0-9_.,:=@%/+-]+)?")
_VARIABLE = re.compile(r"((NCCL|RCCL|GLOO|FI|UCX|CXI|MIOPEN|PYTORCH|TORCH_NCCL|OMP)_[A-Z0-9_]+|CUDA_VISIBLE_DEVICES)")


def _is_option(name: str) -> bool:
    return re.fullmatch(_OPTION, name) is not None and not _may_mean(name, OF_THE_LAUNCHER)


def _is_step_flag(flag: str) -> bool:
    found = _FLAG.fullmatch(flag)
    return found is not None and not _may_mean(found[1], OF_THE_STEP)


def _may_mean(name: str, names: tuple[str, ...]) -> bool:
    """Whether Slurm may take `name` for one of these options, which it knows by their beginnings too (getopt_long)."""
    return any(one.startswith(name) for one in names)


def _is_value(text: str) -> bool:
    return bool(text.strip()) and console.control_character(text) is None


GROUPS = ("all", "gpu", "cpu", *stages.STAGES, stages.GENERATE)
"""The jobs that an entry is for: all, those on GPU nodes, those on CPU nodes, or one stage. The later one wins."""

Group = Annotated[str, Rule(GROUPS.__contains__, f"one of {', '.join(GROUPS)}")]

Option = Annotated[str, Rule(_is_option, "a long option of sbatch without dashes, and none that the launcher sets itself")]
OptionValue = Annotated[str, Rule(_is_value, "text without control characters")]
StepFlag = Annotated[str, Rule(_is_step_flag, "a flag of srun, as --cpu-bind=none, and none that hpc/job.sh sets itself")]
RuntimeFlag = Annotated[str, Rule(_FLAG.fullmatch, "a flag, as --nv or --name=value")]
Account = Annotated[
    str, Rule(re.compile(r"([A-Za-z0-9_.@-]|\{account\})+").fullmatch, "a project, or a rule as '{account}@h100'")
]
Suffix = Annotated[str, Rule(re.compile(r"[A-Za-z0-9.-]{1,60}").fullmatch, "letters, digits, dots and dashes")]
Variable = Annotated[
    str, Rule(_VARIABLE.fullmatch, "a variable of the network, the GPUs or PyTorch, such as NCCL_SOCKET_IFNAME")
]
VariableValue = Annotated[str, Rule(re.compile(r"[A-Za-z0-9_.,:^=+-]+").fullmatch, "letters, digits and _.,:^=+- (no path)")]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,@+-]{0,99}")
"""A partition, a QoS, a cluster."""

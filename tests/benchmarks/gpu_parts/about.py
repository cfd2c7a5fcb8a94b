"""Print, as JSON, what there is: card, driver, versions, cores. In a process of its own, since a driver may hang."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path


def driver() -> str:
    for command in (
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        ["rocm-smi", "--showdriverversion", "--csv"],
    ):
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            continue
        if found.returncode == 0 and found.stdout.strip():
            return f"{command[0]} says {found.stdout.strip().splitlines()[-1]}"
    return "unknown"


def main() -> None:
    import torch

    kind = sys.argv[1]
    if kind == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU here: --device cpu (make gpu DEVICE=cpu) tries everything in small")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("numpy", "scipy", "triton"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    about = {"kind": kind, "device": processor, "processor": processor, "cores": len(os.sched_getaffinity(0))}
    about |= {"memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "system": platform.release()}
    if kind == "cuda":
        card = torch.cuda.get_device_properties(0)
        versions |= {
            "cuda": str(torch.version.cuda),
            "rocm": str(torch.version.hip),
            "cudnn": str(torch.backends.cudnn.version()),
        }
        if torch.distributed.is_nccl_available():
            versions["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        about |= {"device": card.name, "card_memory": card.total_memory, "processors": card.multi_processor_count}
        about |= {"capability": ".".join(map(str, torch.cuda.get_device_capability(0))), "driver": driver()}
    print(json.dumps({**about, "versions": versions}))


if __name__ == "__main__":
    main()

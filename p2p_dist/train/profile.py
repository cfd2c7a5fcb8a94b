"""Profile some steps with torch.profiler: a trace for each rank, and a table of what takes longest in the log.

Only this module imports torch.profiler. The networks label their work with `labelled`.
"""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from p2p_dist.common import console, files
from p2p_dist.settings.train import step_range
from p2p_dist.train.distributed import Ranks

OPERATIONS = 10
"""Number of operations in the table."""

PARTS = ("data wait", "forward", "backward", "update")
"""Labels of the parts of a step."""


def labelled(part: str) -> AbstractContextManager[object]:
    """Label the operations inside for a profile. It costs about a microsecond if no profile is recorded."""
    return record_function(part)


class Profile:
    """Records the steps that `train.profile` names, counted as in metrics.jsonl: 1 is the first.

    Args:
        folder: for the traces, `steps-200-210-rank0.json.gz`: open them in chrome://tracing or https://ui.perfetto.dev.
        steps: see `settings.train.step_range`.
    """

    def __init__(self, folder: Path, steps: str, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        found = step_range(steps)
        assert found is not None, "checked by the settings"
        self.first, self.last = found
        self.recorder: profile | None = None
        self.begun, self.began_at = 0.0, 0

    def before(self, step: int) -> None:
        """Start recording if `step` is the next step, and one of those named."""
        if self.recorder is None and self.first <= step <= self.last:
            activities = [ProfilerActivity.CPU]
            if self.ranks.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self.recorder, self.began_at = profile(activities=activities), step
            self.recorder.start()
            self._wait()
            self.begun = time.perf_counter()

    def after(self, step: int, *, is_end: bool) -> None:
        """Write trace and table if `step` is the last one to record, or the training ends."""
        if self.recorder is None or (step < self.last and not is_end):
            return
        recorder, self.recorder = self.recorder, None
        self._wait()
        seconds = time.perf_counter() - self.begun
        recorder.stop()
        path = self.folder / f"steps-{self.began_at}-{step}-rank{self.ranks.rank}.json.gz"
        with files.replacing(path) as temporary:
            packed = temporary.with_name(f"{temporary.name}.gz")  # torch compresses files of this name
            recorder.export_chrome_trace(str(packed))
            packed.replace(temporary)
        if self.ranks.rank == 0:
            for line in table(recorder, step - self.began_at + 1, seconds, on_gpu=self.ranks.device.type == "cuda"):
                console.say(line)
            console.say(f"profile: the trace is in {path}")

    def _wait(self) -> None:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)


def table(recorder: profile, steps: int, seconds: float, *, on_gpu: bool) -> list[str]:
    """Return lines for the log: the share of each part of a step, and the operations that take longest themselves.

    Args:
        steps, seconds: what was recorded. on_gpu: count the time of the GPU, else that of the CPU.
    """
    averages = recorder.key_averages()

    def total(name: str) -> float:
        """Seconds of all events whose name matches."""
        found = [event for event in averages if re.fullmatch(name, event.key)]
        return sum(max(event.device_time_total, event.cpu_time_total) for event in found) / 1e6

    shares = {part: total(part) for part in PARTS}
    shares["all-reduce"] = total("nccl:all_?reduce|gloo:all_?reduce")
    shares["copies"] = total("Memcpy.*")
    words = ", ".join(f"{part} {100 * share / seconds:.0f} %" for part, share in shares.items())
    lines = [f"profile: {steps} steps of {1000 * seconds / steps:.4g} ms: {words} (they overlap); per step:"]
    own = {event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6 for event in averages}
    calls = {event.key: event.count / steps for event in averages}
    for name in sorted(own, key=lambda name: -own[name])[:OPERATIONS]:
        share = own[name] / seconds
        lines.append(
            f"profile: {1000 * own[name] / steps:9.3f} ms, {100 * share:3.0f} %, {calls[name]:6.1f} calls: {name[:80]}"
        )
    return lines

"""Part 2: is it right."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from gpu_parts import common
from gpu_parts.common import Measurement, Place, Row, apart, arithmetic, batch_of, build, config_of, vector, weights
from p2p_dist.checks.preflight import training_step
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.data.stream import Stream
from p2p_dist.run import rundir
from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import capture, checkpoint, distributed, loop, nonfinite, speed
from p2p_dist.train.capture import Captured
from p2p_dist.train.saver import Saver
from p2p_dist.train.seeding import Noise
from p2p_dist.train.step import train_step


def steps(place: Place) -> int:
    """Updates of a curve."""
    return 8 if place.small else 50


def measurements(place: Place) -> list[Measurement]:
    no_card = "" if place.kind == "cuda" else "a CPU has no graphs and no asynchronous copies"
    gradients = "Gradients of the first update, against float64 on the CPU"
    backend, refused = "NCCL" if place.kind == "cuda" else "gloo", "A step that can't be captured"
    found = [
        Measurement("gradients", lambda: gradients_of(place), gradients, 60, least=0 if place.small else 15),
        Measurement("preflight", lambda: preflight(place), "The training step of `check.py preflight`", 40),
        Measurement("captured", lambda: captured(place), "The step as a CUDA graph", 60, "captured", skipped=no_card),
        *(
            Measurement(
                f"not captured: {name}", lambda name=name: not_captured(place, name), refused, 40, "refused", 0, no_card
            )
            for name in place.networks
        ),
        Measurement("stages", lambda: stages(place), "Batches on the device, against those read for the processor", 40),
        Measurement("killed and resumed", lambda: killed(place), "A training that is killed and resumed, to the bit", 60),
        Measurement("not finite", lambda: not_finite(place), "A loss that is not finite", 30),
        Measurement("no synchronisation", lambda: no_synchronisation(place), "Waiting of the host", 40, skipped=no_card),
        Measurement("one rank", lambda: one_rank(place), f"{backend} with one rank, through the same DDP path", 60),
        Measurement("checkpoint", lambda: saving(place), "A checkpoint beside the training", 60),
        *curves(place),
    ]
    return found


# Killed and resumed.


def killed(place: Place) -> Iterator[Row]:
    """With deterministic algorithms: a training killed in its midst and started again against one that was left alone."""
    tiny = PRESETS["tiny"]
    for name in place.networks:
        model = config_of(name, dataclasses.replace(place, kind="cpu")).model  # its kinds of layers, in small
        config = dataclasses.replace(tiny, model=model)
        if place.small:
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=10, checkpoint_every=3))
        total = config.train.steps
        assert total is not None
        results = []
        for which, kill_after in (("whole", None), ("killed", (2 * total) // 3)):
            run = common.lay_out(place.scratch / f"killed-{name}" / which, config, 64)
            if kill_after is not None:
                assert in_a_process(place, run.path, kill_after) == -signal.SIGKILL
                assert 0 < checkpoint.newest_step(run.checkpoints) < total
            assert in_a_process(place, run.path, None) == 0
            state = run.checkpoints / rundir.step_name(total) / checkpoint.STATE
            results.append(list(checkpoint.tensors(torch.load(state, weights_only=True, map_location="cpu"))))
        same = all(torch.equal(one, other) for one, other in zip(*results, strict=True))
        most = max(float((one.double() - other.double()).abs().max()) for one, other in zip(*results, strict=True))
        yield {"networks": name, "tensors": len(results[0]), "equal to the bit": same, "largest difference": most}


def in_a_process(place: Place, folder: Path, kill_after: int | None) -> int:
    """Train with deterministic algorithms in a forked process, killed right after update `kill_after`; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        place.begin()
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        speed.flops_per_image = lambda config: 1  # counting takes longer than the training
        honest, done = capture.step_of, [checkpoint.newest_step(rundir.RunDir(folder).checkpoints)]

        def mortal(*arguments: Any) -> Any:
            step = honest(*arguments)

            def one(*batch: Any) -> Any:
                if done[0] == kill_after:
                    time.sleep(0.3)  # the checkpoint before this is on the disk
                    os.kill(os.getpid(), signal.SIGKILL)
                done[0] += 1
                return step(*batch)

            return one

        capture.step_of = mortal
        run = rundir.RunDir(folder)
        code = loop.train(run, rundir.read_settings(run))
        os._exit(code)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


# Gradients.


def first_gradients(place: Place, network: str, dtype: torch.dtype = torch.float32, **train: Any) -> dict[str, torch.Tensor]:
    """Of both networks, in the first update; the discriminator hardly moves before the generator's, and nothing is dropped."""
    config = config_of(network, place, {"dropout": 0.0}, ema=0.0, learning_rate=1e-12, **train)
    built = build(config, place)
    if dtype is torch.float64:
        from p2p_dist.train import networks

        built.generator_optimiser = networks.new_adam(built.generator.double(), config.train)
        built.discriminator_optimiser = networks.new_adam(built.discriminator.double(), config.train)
    batch = [None if one is None else one.to(dtype) for one in batch_of(config, 2, place.device)]
    train_step(built, *batch, config.train, 0)
    return {"generator": vector(built.generator), "discriminator": vector(built.discriminator)}


def gradients_of(place: Place) -> Iterator[Row]:
    """Bounds: float32 a thousandth, TF32 (10 bits) two hundredths, bf16 (8 bits) fifteen hundredths."""
    place.begin()
    if not place.small:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    host = dataclasses.replace(place, kind="cpu")
    ways: list[tuple[str, bool, dict[str, Any], float]] = [
        ("fp32", False, {"precision": "fp32", "layout": "contiguous"}, 1e-3),
        ("fp32, channels_last", False, {"precision": "fp32", "layout": "channels_last"}, 1e-3),
        ("tf32", True, {"precision": "fp32", "layout": "contiguous"}, 0.02),
        ("bf16", True, {"precision": "bf16", "layout": "contiguous"}, 0.15),
        ("bf16, channels_last", True, {"precision": "bf16", "layout": "channels_last"}, 0.15),
    ]
    for network in place.networks:
        at = _Full(host) if not place.small else host
        true = first_gradients(at, network, torch.float64, precision="fp32", layout="contiguous")
        for name, tf32, train, bound in ways:
            arithmetic(tf32)
            found = first_gradients(place, network, **train)
            errors = {of: apart(found[of], true[of]) for of in true}
            row = {"networks": network, "arithmetic": name, **errors, "bound": bound}
            yield {**row, "within": all(error < bound for error in errors.values())}


class _Full(Place):
    """The host at full size."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.kind, place.scratch, place.data)

    @property
    def small(self) -> bool:
        return False


def preflight(place: Place) -> Iterator[Row]:
    """It compares gradients, too: of a small network, with the layout and precision that a run chooses."""
    place.begin()
    yield {"it said": training_step.one_step(place.ranks)}


# What is not finite, and waiting.


def watched(place: Place, network: str, size: int = 4) -> tuple[Any, Any, Any, Any]:
    config = config_of(network, place, ema=0.9)
    built = build(config, place)
    batch = batch_of(config, size, place.device)
    samples = SimpleNamespace(key="pair-{}".format)
    stream = SimpleNamespace(
        batch=lambda number: batch[:2],
        positions=lambda number: range(size),
        samples=lambda positions: positions,
        index=SimpleNamespace(samples=samples),
    )
    return config, built, batch, nonfinite.Watch(built, stream, place.ranks, place.scratch)  # type: ignore[arg-type]


def everything(built: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in checkpoint.tensors(built.state())]


def not_finite(place: Place) -> Iterator[Row]:
    """A target with one infinite value, between good updates: what the host learns a step later must have changed nothing."""
    place.begin()
    for network in place.networks:
        config, built, batch, watch = watched(place, network)
        input, target, noise = batch
        bad = target.clone()
        bad[0, 0, 3, 3] = torch.inf
        watch.after(1, train_step(built, input, target, noise, config.train, 1)[1])
        watch.now()
        before = everything(built)
        watch.after(2, train_step(built, input, bad, noise, config.train, 2)[1])
        said = "nothing"
        try:
            watch.after(3, train_step(built, input, target, noise, config.train, 3)[1])
        except FloatingPointError as error:
            said = str(error).splitlines()[0]
        same = equal(before, everything(built))
        yield {"networks": network, "undone to the bit": same, "it said": said}


def no_synchronisation(place: Place) -> Iterator[Row]:
    """torch raises at whatever makes the host wait: 20 updates as the loop makes them, the flags read a step later."""
    place.begin()
    for network in place.networks:
        index, config = pairs_on_disk(place, f"waiting-{network}", 256, network)
        for stage, captured in (("none", False), ("device", False), ("none", True)):
            settings = dataclasses.replace(config_of(network, place), data=dataclasses.replace(config.data, stage=stage))
            built = build(settings, place)
            stream = Stream(index, settings.data, seed=0, global_batch_size=16, device=place.device)
            watch = nonfinite.Watch(built, stream, place.ranks, place.scratch)
            update = Captured(built, settings.train) if captured else common.step_of(built, settings)
            noises = Noise(stream, 0, (settings.model.noise_channels, settings.data.mels, settings.data.frames))
            error = ""
            for step in range(23):
                if step == 3:
                    place.wait()
                    torch.cuda.set_sync_debug_mode("error")
                try:
                    input, target = stream.batch(step)
                    noise = noises.batch(step)
                    watch.after(step + 1, update(input, target, noise, step)[1])
                except RuntimeError as raised:
                    error = str(raised).splitlines()[0]
                    import traceback

                    traceback.print_exc()
                    break
            torch.cuda.set_sync_debug_mode("default")
            yield {
                "networks": network,
                "stage": stage,
                "captured": captured,
                "updates": step + 1 - 3,
                "the host waited": error or "never",
            }


# The step as a CUDA graph.


def captured(place: Place) -> Iterator[Row]:
    """A captured step undoes what is not finite."""
    place.begin()
    for network in place.networks:
        config, built, (input, target, noise), watch = watched(place, network)
        step = Captured(built, config.train)
        bad = target.clone()
        bad[0, 0, 3, 3] = torch.inf
        for number in (1, 2, 3):
            watch.after(number, step(input, target, noise, number)[1])
        watch.now()
        before = everything(built)
        watch.after(4, step(input, bad, noise, 4)[1])
        said = "nothing"
        try:
            watch.after(5, step(input, target, noise, 5)[1])
        except FloatingPointError as error:
            said = str(error).splitlines()[0].partition(":")[0]
        same = equal(before, everything(built))
        yield {"networks": network, "what": "not finite", "undone to the bit": same, "it said": said}


def not_captured(place: Place, network: str) -> Iterator[Row]:
    """A step that waits for the device, so that its capture fails: that changes nothing, and the training goes on as if nobody
    had tried, with the same random numbers. In a process of its own, since torch is left in disorder."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    place.begin()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    config, alone, (input, target, noise), _ = watched(place, network)
    for number in (1, 2, 3):
        train_step(alone, input, target, noise, config.train, number)
    torch.manual_seed(7)
    drawn = torch.rand(1000, device=place.device)

    config, built, _, watch = watched(place, network)
    step, before, honest = Captured(built, config.train), everything(built), capture.train_step

    def waits(*arguments: Any, **named: Any) -> Any:
        answer = honest(*arguments, **named)
        answer[0]["l1"].item()
        return answer

    told: list[str] = []
    capture.train_step, capture.console.say = waits, told.append
    step.begin([input, target, noise, None])
    capture.train_step = honest
    row: Row = {"networks": network, "undone to the bit": equal(before, everything(built))}
    for number in (1, 2, 3):
        watch.after(number, step(input, target, noise, number)[1])
    watch.now()
    row["three updates as without a try"] = equal(everything(alone), everything(built))
    torch.manual_seed(7)
    row["draws as before"] = torch.equal(drawn, torch.rand(1000, device=place.device))
    yield row | {"it said": "; ".join(told)[:200]}


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether they are equal to the bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Where batches come from.


def pairs_on_disk(place: Place, name: str, pairs: int, network: str = "plain") -> tuple[Index, Any]:
    config = config_of(network, place)
    folder = common.write_pairs(place.scratch / "shards" / name, config.data, pairs)
    return Index(folder, "train"), config


def stages(place: Place) -> Iterator[Row]:
    """Each batch and its noise, for a device that is busy and lags behind, against those for a processor, read from disk."""
    place.begin()
    index, config = pairs_on_disk(place, "stages", 96)
    shape = (config.model.noise_channels, config.data.mels, config.data.frames)
    factor = torch.randn(64 if place.small else 6000, 64 if place.small else 6000, device=place.device)

    def batches(stage: str, device: torch.device, lag: bool) -> list[torch.Tensor]:
        data = dataclasses.replace(config.data, stage=stage)
        here = index if stage != "node" else Index(copy_to_node(index.folder, "train"), "train")
        stream = Stream(here, data, seed=3, global_batch_size=16, device=device)
        noises, found = Noise(stream, 3, shape), []
        for step in (*range(12), 2, 3, 40, 41, 42):
            if lag:  # about 30 ms on an H100 in float32: longer than it takes to read the next batch
                for _ in range(4):
                    factor @ factor
            input, target = stream.batch(step)
            found += [input.clone(), target.clone(), noises.batch(step) + 0]
        return [tensor.cpu() for tensor in found]

    arithmetic(False)
    true = batches("none", torch.device("cpu"), False)
    for stage in ("none", "node", "device"):
        found = batches(stage, place.device, True)
        yield {"stage": stage, "batches and noise": len(found), "equal to the bit": equal(true, found)}


# Curves.


def curve_of(place: Place, config: Any, captured: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 of each update, and the generator's weights after them."""
    built = build(config, place)
    size = 4 if place.small else 16
    batches = [batch_of(config, size, place.device, size * number) for number in range(4)]
    step = Captured(built, config.train) if captured else common.step_of(built, config)
    found = []
    for number in range(steps(place)):
        terms, _ = step(*batches[number % 4], number)
        found.append(terms["l1"].clone())
    return torch.stack(found).double().cpu(), weights(built.generator)


REFERENCE = {"precision": "fp32", "layout": "contiguous"}
VARIANTS: dict[str, tuple[bool, dict[str, Any], float]] = {
    "fp32, captured": (False, REFERENCE, 0.02),
    "tf32": (True, REFERENCE, 0.05),
    "fp32, channels_last": (False, {"precision": "fp32", "layout": "channels_last"}, 0.05),
    "bf16": (True, {"precision": "bf16", "layout": "contiguous"}, 0.1),
    "bf16, channels_last": (True, {"precision": "bf16", "layout": "channels_last"}, 0.1),
    "bf16, channels_last, captured": (True, {"precision": "bf16", "layout": "channels_last"}, 0.1),
    "fp32, compiled": (False, {**REFERENCE, "compile": True}, 0.05),
    "bf16, channels_last, compiled": (True, {"precision": "bf16", "layout": "channels_last", "compile": True}, 0.1),
}
"""TF32 or not, settings, and how far the mean L1 of the last ten updates may be from eager fp32's, relatively."""


def bounds(place: Place, names: list[str], networks: tuple[str, ...]) -> Iterator[Row]:
    """Each variant beside eager fp32, which is run twice: how far two equal trainings drift, where nothing is deterministic."""
    place.begin()
    if place.small and any("compiled" in name for name in names):
        compile_quickly()
    for network in networks:
        model = {"dropout": 0.0}  # compiled code draws other masks
        arithmetic(False)
        true, true_weights = curve_of(place, config_of(network, place, model, **REFERENCE))
        if "drift" in names:
            again, weights_again = curve_of(place, config_of(network, place, model, **REFERENCE))
            row = {"networks": network, "variant": "eager fp32 again", "first L1": float(again[0])}
            row |= {"last L1": float(again[-10:].mean()), "of eager fp32": float(true[-10:].mean())}
            error = float((again[-10:].mean() - true[-10:].mean()).abs() / true[-10:].mean())
            yield row | {"apart": error, "weights apart": apart(weights_again, true_weights)}
        for name in names:
            if name == "drift":
                continue
            tf32, train, bound = VARIANTS[name]
            arithmetic(tf32)
            config = config_of(network, place, model, **train)
            found, found_weights = curve_of(place, config, "captured" in name)
            error = float((found[-10:].mean() - true[-10:].mean()).abs() / true[-10:].mean())
            row = {"networks": network, "variant": name, "first L1": float(found[0]), "last L1": float(found[-10:].mean())}
            row |= {
                "of eager fp32": float(true[-10:].mean()),
                "apart": error,
                "weights apart": apart(found_weights, true_weights),
            }
            yield row | {"bound": bound, "within": error < bound}


def curves(place: Place) -> list[Measurement]:
    """Compiled variants by themselves: compiling takes most of the time."""
    title = f"{steps(place)} updates, against eager fp32"
    eager = [name for name in VARIANTS if "compiled" not in name]
    if place.small:
        eager = ["fp32, channels_last", "bf16, channels_last"]
    found = []
    for of in place.networks:
        do = functools.partial(bounds, place, ["drift", *eager], (of,))
        found.append(Measurement(f"curves: {of}", do, title, 90, "curves", 0 if place.small else 20))
    for name in VARIANTS:
        if "compiled" in name:
            skipped = "not in small" if place.small and "bf16" in name else ""
            found.append(
                Measurement(name, functools.partial(bounds, place, [name], place.networks), title, 150, "curves", 40, skipped)
            )
    return found


def compile_quickly() -> None:
    """Where no GPU is, compiled code is traced and not generated: that takes minutes."""
    honest = torch.nn.Module.compile
    torch.nn.Module.compile = lambda module, **how: honest(module, backend="eager", **how)  # type: ignore[method-assign]


# Processes, and saving.


def one_rank(place: Place) -> Iterator[Row]:
    """Networks in DDP over a group of one process, whose gradients go through the backend's all-reduce and back."""
    place.begin()
    backend = "nccl" if place.kind == "cuda" else "gloo"
    store = dist.FileStore(str(place.scratch / "one-rank-store"), 1)
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    two = dataclasses.replace(place.ranks, world_size=2)  # a group of one is not wrapped otherwise
    arithmetic(False)
    for precision in ("fp32", "bf16"):
        config = config_of("plain", place, gradient_precision=precision, **REFERENCE)
        batch = batch_of(config, 4, place.device)
        alone, wrapped = build(config, place), build(config, place)
        wrapped.parallel_generator = distributed.wrap(wrapped.generator, two, precision)
        wrapped.parallel_discriminator = distributed.wrap(wrapped.discriminator, two, precision)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(3):
                for built in (alone, wrapped):
                    train_step(built, *batch, config.train, step)
        row = {"gradients travel in": precision, "weights apart": apart(weights(wrapped.generator), weights(alone.generator))}
        yield {**row, "warnings": "; ".join({str(one.message)[:120] for one in said}) or "none"}
    reduced = distributed.all_reduce_speed(place.ranks)
    yield {"gradients travel in": f"all-reduce of {reduced.size / 1e6:.0f} MB", "seconds": reduced.seconds}


def saving(place: Place) -> Iterator[Row]:
    """What a checkpoint of the thesis's networks takes of the training: the copy holds it up, the write goes on beside it."""
    place.begin()
    config = config_of("thesis", place, precision="bf16" if place.kind == "cuda" else "fp32")
    built = build(config, place)
    batch = batch_of(config, 16 if place.kind == "cuda" else 2, place.device)
    step = common.step_of(built, config)
    alone = common.seconds_of(lambda: step(*batch, 0), place, 0.1, 3)
    with Saver(place.scratch / "saved", 2, lambda number: False) as saver:
        for number in (1, 2, 3):  # the first also asks for the memory
            place.wait()
            begun = time.perf_counter()
            saver.save(number, {"networks": built.state()}, built.to_evaluate(), {})
            copied = time.perf_counter()
            taken = 0
            while saver.thread is not None and saver.thread.is_alive():
                step(*batch, 0)
                place.wait()
                taken += 1
            beside = time.perf_counter() - copied
            saver.wait()
            size = sum(file.stat().st_size for file in (place.scratch / "saved" / rundir.step_name(number)).iterdir())
            row = {"save": number, "megabytes": size / 1e6, "training held up, s": copied - begun, "written in, s": beside}
            alone_s = sorted(alone)[1]
            yield {**row, "ms a step beside it": 1000 * beside / max(1, taken), "ms a step alone": 1000 * alone_s}

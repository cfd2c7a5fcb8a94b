"""The command that is to answer, in few minutes on a GPU, what only a GPU can: it must not fail by itself there.

That its measurements run is tried by `make gpu DEVICE=cpu`. Here: one that crashes or hangs costs itself only, what was
measured is never lost nor measured twice, and what the report says of the aims is right.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import torch  # noqa: E402
import train_step  # noqa: E402
from gpu_parts import common, counted, report, wheels, worker  # noqa: E402


@pytest.fixture
def told(tmp_path):
    """A part's folder, and how its lines are read."""
    lines = tmp_path / "part.jsonl"
    lines.touch()
    work = {"scratch": str(tmp_path), "lines": str(lines)}
    return work, lambda: [json.loads(line) for line in lines.read_text().splitlines()]


def measurement(measure, seconds=5.0):
    return common.Measurement("one", measure, "a title", seconds)


def crash():
    yield {"figure": 1}
    faulthandler.disable()  # pytest's, whose stack nobody needs here
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    yield {"figure": 2}
    print("waiting for the card", flush=True)
    time.sleep(600)


def refuse():
    yield {"figure": 3}
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_measurement_that_crashes_or_hangs_costs_itself_only(told):
    work, lines = told
    ended = worker.in_a_child(measurement(crash), work, 5)
    assert (ended["state"], ended["why"]) == ("failed", "ended by SIGSEGV")
    begun = time.monotonic()
    ended = worker.in_a_child(measurement(hang), work, 2)
    assert time.monotonic() - begun < 60
    assert (ended["state"], ended["lines"]) == ("cut off", ["waiting for the card"])
    ended = worker.in_a_child(measurement(refuse), work, 5)
    assert ended["state"] == "failed" and "illegal memory access" in ended["why"]
    assert ended["lines"][0].startswith("Traceback") and len(ended["lines"]) <= 12
    assert [line["row"] for line in lines()] == [{"figure": 1}, {"figure": 2}, {"figure": 3}], "what was known is not lost"


def test_a_part_goes_on_and_says_what_it_left_out(told, monkeypatch):
    work, lines = told
    asked = [
        common.Measurement("done before", refuse, "", 5),
        common.Measurement("slow", hang, "", 0.5),
        common.Measurement("absent", refuse, "", 5, skipped="there is none here"),
        common.Measurement("long", refuse, "", 5, least=1000),
        common.Measurement("good", lambda: iter([{"figure": 4}]), "", 5),
    ]
    monkeypatch.setitem(sys.modules, "gpu_parts.some", argparse.Namespace(measurements=lambda place: asked))
    worker.run({**work, "part": "some", "seconds": 30, "only": [], "done": ["done before"]}, None)
    ended = {line["name"]: line for line in lines() if line["say"] == "ends"}
    assert {name: line["state"] for name, line in ended.items()} == {
        "slow": "failed",
        "absent": "not run",
        "long": "not run",
        "good": "done",
    }
    assert ended["absent"]["why"] == "there is none here"
    worker.run({**work, "part": "some", "seconds": 0.1, "only": [], "done": []}, None)
    assert {line["state"] for line in lines() if line["say"] == "ends" and line["name"] != "absent"} == {
        "failed",
        "not run",
        "done",
    }


def a_run(tmp_path: Path, **about) -> gpu.Run:
    run = gpu.Run(gpu.parse(["--report", str(tmp_path)]), sys.executable, {}, tmp_path)
    run.begin({"device": "Some card", "kind": "cuda", "versions": {"torch": "2.11"}, "cores": 1, "memory": 1e9, **about})
    return run


STAND_IN = """
import json, os, signal, sys, time
print("{}\\nready", flush=True)
for line in sys.stdin:
    work = json.loads(line)
    def tell(**said):
        with open(work["lines"], "a") as lines:
            lines.write(json.dumps(said) + "\\n")
    tell(say="part begins", process=0)
    tell(say="begins", name="one", title="", table="")
    tell(say="row", name="one", row={"figure": 1})
    if work["part"] == "runs":
        print("waiting for the card", flush=True)
        time.sleep(60)
    if work["part"] == "right":
        os.kill(os.getpid(), signal.SIGKILL)
    tell(say="ends", name="one", state="done")
    tell(say="part ends", code=0)
"""


def test_a_part_that_hangs_or_dies_with_its_worker_costs_itself_only(tmp_path, monkeypatch):
    """Worse than a measurement: what watches over them says nothing more, or is gone. The next part gets another."""
    (tmp_path / "gpu_parts").mkdir()
    (tmp_path / "gpu_parts" / "worker.py").write_text(STAND_IN)
    run = a_run(tmp_path, **ABOUT)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    monkeypatch.setattr(gpu, "PATIENCE", 1.0)
    run.start()
    for part in ("runs", "right", "fast"):
        run.part(part, 0.2)
    run.worker.kill()
    run.worker.wait()
    found = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    why = {name: one.get("why") for name, one in found.items() if "itself" in name}
    assert why == {
        "runs/(the part itself)": "hung and was killed",
        "right/(the part itself)": "died together with what watched over it",
    }
    assert {name: one["state"] for name, one in found.items() if name.endswith("/one")} == {
        "runs/one": "failed",
        "right/one": "failed",
        "fast/one": "done",
    }
    assert found["runs/one"]["rows"] == [{"figure": 1}], "what was known is not lost"
    assert "waiting for the card" in (tmp_path / "gpu.md").read_text()


ABOUT = {"processor": "some", "card_memory": 80e9, "processors": 132, "driver": "none"}


def test_started_again_it_keeps_what_is_done_under_the_same_conditions(tmp_path):
    run = a_run(tmp_path, **ABOUT)
    run.content["measurements"] = {
        "fast/one": {"state": "done", "rows": [{"figure": 1}]},
        "fast/two": {"state": "failed", "why": "it hung", "lines": ["last words"], "rows": []},
    }
    run.write()
    said = (tmp_path / "gpu.md").read_text()
    assert "last words" in said and "it hung" in said
    assert said.count("- not run: this part was not begun") == 3, "all but the part of those two"
    assert set(a_run(tmp_path, **ABOUT).content["measurements"]) == {"fast/one"}, "what failed is tried again"
    for other in ({"device": "Another card"}, {"versions": {"torch": "2.13"}}):
        run.write()
        found = a_run(tmp_path, **{**ABOUT, **other})
        assert not found.content["measurements"]
        assert "| figure | measured earlier |" in found.path.with_suffix(".md").read_text()
        assert "| 1 | Some card, code " in found.path.with_suffix(".md").read_text()


def speed_of(card: str, rate: float, **also) -> dict:
    about = {**ABOUT, "device": card, "kind": "cuda", "versions": {}, "code": "c0de", "cores": 1, "memory": 1e9, "commit": "?"}
    fast = {"state": "done", "table": "speed", "title": "Speed", "rows": [row("ours", "thesis", 64, rate)]}
    return {"schema": 1, "about": about, "measurements": {"fast/a": fast, **also}, "earlier": {}}


def test_reports_of_several_calls_are_put_together(tmp_path):
    """What was measured again on the same card replaces what was; another card's rows stay, and count for no aim."""
    cut = {"state": "cut off", "why": "took more than 3 s", "rows": [], "title": ""}
    more = {"state": "done", "rows": [{"figure": 7}], "title": "More"}
    for name, content in {
        "gpu": speed_of("H200", 3000.0, **{"fast/b": more}),
        "one": speed_of("H200", 3500.0, **{"fast/b": cut}),
        "two": speed_of("H100", 1000.0),
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    path = tmp_path / "gpu.json"
    assert gpu.add(gpu.parse(["--report", str(tmp_path), "--add", str(tmp_path / "one.json")])) == 0
    found = json.loads(path.read_text())
    assert found["measurements"]["fast/a"]["rows"][0]["images/s"] == 3500
    assert found["measurements"]["fast/b"]["state"] == "done", "what is done counts before what is not"
    failed = {"state": "failed", "why": "it hung", "lines": ["last words"], "rows": [], "title": ""}
    (tmp_path / "three.json").write_text(json.dumps(speed_of("H200", 3600.0, **{"right/c": failed})))
    files = [str(tmp_path / name) for name in ("three.json", "one.json")]
    assert gpu.add(gpu.parse(["--report", str(tmp_path), "--add", *files])) == 0
    found = json.loads(path.read_text())["measurements"]
    assert found["right/c"] == failed and found["fast/a"]["rows"][0]["images/s"] == 3500, "the last counts"
    assert gpu.add(gpu.parse(["--report", str(tmp_path), "--add", str(tmp_path / "two.json")])) == 0
    found, said = json.loads(path.read_text()), path.with_suffix(".md").read_text()
    assert set(found["measurements"]) == {"fast/a"} and set(found["earlier"]) == {"fast/a", "fast/b"}
    assert found["earlier"]["fast/a"]["rows"][0]["images/s"] == 3500, "it is of another card"
    assert "at least 2500 images/s | 1000 | no |" in said and "| 3500 | some | H200, code c0de" in said
    mixed = report.table([{"a": 1, report.LABEL: "H200"}, {"a": 2, "b": 3}])
    assert mixed[0] == "| a | b | measured earlier |", "it comes last"
    (tmp_path / "not.json").write_text("[]")
    for wrong in ("not.json", "absent.json"):
        with pytest.raises(SystemExit) as left:
            gpu.parse(["--add", str(tmp_path / wrong)])
        assert left.value.code == 2


def test_measurements_can_be_chosen_by_name():
    names = {"right": ["stages", "gradients"], "fast": ["thesis: bf16", "thesis: tf32", "data"]}
    assert gpu.wanted(names, ["right", "fast"], []) == ["right", "fast"]
    assert gpu.wanted(names, ["right", "fast"], ["thesis*", "data"]) == ["fast"]
    with pytest.raises(SystemExit, match="--only 'dta' is no measurement of right, fast"):
        gpu.wanted(names, ["right", "fast"], ["stages", "dta"])
    all_of_fast = [common.Measurement(name, refuse, "", 5) for name in names["fast"]]
    assert [one.name for one in worker.chosen(all_of_fast, ["data", "thesis*"])] == ["data", "thesis: bf16", "thesis: tf32"]
    assert worker.chosen(all_of_fast, []) == all_of_fast


def test_figures_of_a_card_are_not_given_away_for_those_of_a_cpu(tmp_path):
    run = a_run(tmp_path, **ABOUT)
    run.content["measurements"] = {"fast/one": {"state": "done", "rows": [{"figure": 1}]}}
    run.write()
    before = (tmp_path / "gpu.json").read_bytes()
    a_run(tmp_path, kind="cpu", processor="some")
    assert (tmp_path / "gpu.json").read_bytes() == before
    assert (tmp_path / "gpu-cpu.md").read_text().startswith("# A trial on a CPU, in small")


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@pytest.mark.parametrize("part", list(gpu.PARTS))
def test_each_measurement_has_a_name_of_its_own_and_a_limit(tmp_path, part, kind):
    place = common.Place(kind, tmp_path, None)
    found = importlib.import_module(f"gpu_parts.{part}").measurements(place)
    assert len({one.name for one in found}) == len(found) > 1
    assert all(one.least < one.seconds for one in found)
    assert place.small or sum(one.least for one in found[:3]) < 60 * gpu.PARTS[part], "what matters most is begun"


def row(whose, network, batch, rate):
    return {"whose": whose, "network": network, "batch": batch, "images/s": rate, "way": "some"}


def test_the_aims():
    rows = [row("ours", "thesis", 64, 4000.0), row("ours", "thesis", 64, 2600.0), row("plain", "thesis", 64, 2000.0)]
    rows += [row("ours", "thesis", 1, 500.0), row("plain", "thesis", 1, 400.0)]
    found = {"fast/a": {"table": "speed", "rows": rows}, "fast/b": {"rows": [{"share of the step": 0.004}]}}
    lines = report.aims(found)[2:]
    assert [line.split("|")[2].strip() for line in lines] == ["4000", "4000", "500", "12.5", "0.004", "1.25"]
    assert [line.split("|")[3].strip() for line in lines] == ["yes", "no", "no", "yes", "yes", "yes"]
    assert all(line.endswith("| – | – |") for line in report.aims({})[2:]), "nothing measured, nothing reached"


def test_wheels_are_taken_where_they_fit_and_are_missing(tmp_path):
    assert wheels.fits("av-18.1.0-cp311-abi3-manylinux_2_28_x86_64.whl", (3, 12))
    assert not wheels.fits("cffi-2.1.1-cp312-cp312-manylinux2014_x86_64.whl", (3, 11))
    assert wheels.fits("stempeg-0.2.6-py2.py3-none-any.whl", (3, 12))
    for name in ("only_there-1.0-py3-none-any.whl", "numpy-99.0-py3-none-any.whl", "other-1.0-cp39-cp39-some.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{name.split('-')[0]}/__init__.py", "x = 1")
    assert wheels.unpack(tmp_path, tmp_path / "site") == ["only-there"]
    assert wheels.unpack(tmp_path / "absent", tmp_path / "site") == []
    python = wheels.python_with(tmp_path / "site", tmp_path / "python")
    ask = "import only_there, numpy; print(only_there.x)"
    said = subprocess.run([python, "-c", ask], env={"PYTHONPATH": ""}, capture_output=True, text=True)
    assert said.stdout == "1\n", said.stderr


def test_without_tyro_settings_are_read_as_with_it(ranks, tmp_path):
    """A machine without our packages has torch and numpy, and runs all that need no more."""
    assert ranks(1, read_without_tyro, tmp_path / "config.yaml") == [True]


def read_without_tyro(path):
    """In a process of its own: as if nothing of ours had been imported, and tyro were not there."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("p2p_dist", "gpu_parts", "tyro")]:
        del sys.modules[name]
    sys.modules["tyro"] = None
    importlib.import_module("gpu_parts.common")
    presets = importlib.import_module("p2p_dist.settings.presets")
    path.write_text(presets.to_yaml(presets.PRESETS["tiny"]))
    return not hasattr(sys.modules["tyro"], "cli") and presets.from_saved(path) == presets.PRESETS["tiny"]


def test_wrong_usage_is_refused_before_anything_is_done(capsys):
    for words in (["--minutes", "0"], ["--data", "/no/such/folder"], ["--part", "first"]):
        with pytest.raises(SystemExit) as left:
            gpu.parse(words)
        assert left.value.code == 2


def test_bf16_that_a_processor_has_no_units_for_is_left_out_by_name():
    cpu, card = torch.device("cpu"), torch.device("cuda")
    left = train_step.left_out(cpu, "flags : fpu avx2 avx512f")
    assert set(left) == {name for name in (*train_step.VARIANTS, *train_step.COMPILED) if "bf16" in name} and len(left) == 3
    assert train_step.left_out(cpu, "flags : fpu avx512_bf16") == train_step.left_out(card, "flags : fpu") == {}


def test_each_time_is_said_as_it_is_measured():
    said = []
    steps = {"one": lambda: said.append("one runs"), "two": lambda: said.append("two runs")}
    found = train_step.interleaved(steps, 1, torch.device("cpu"), said.append)
    assert [text.split(":")[0] for text in said[2:]] == ["one runs", "round 1 of 1", "two runs", "round 1 of 1"]
    assert {name: len(times) for name, times in found.items()} == {"one": 1, "two": 1}


def test_counted_on_meta_tensors():
    """FLOPs as the product counts them; memory and layers by hand for one convolution; the floor is of the slower of both."""
    from p2p_dist.settings.presets import PRESETS
    from p2p_dist.train import speed

    count = counted.count(PRESETS["tiny"], 2)
    assert count.flops == 2 * speed.flops_per_image(PRESETS["tiny"])
    parameters = count.parameters * 4
    assert count.memory > 4 * parameters, "weights, two moments, and gradients at least"
    more = counted.count(PRESETS["tiny"], 8)
    assert count.memory < more.memory < 4 * count.memory
    assert more.kernels == count.kernels
    one = counted.Count(1, 100, 0, [(100, 40)], 0)
    assert one.floor(10, 1, False) == 40 and one.floor(10, 10, False) == 10 and one.floor(1000, 1, True) == 20
    assert counted.Count(1, 0, 0, [], 1).floor(1, 1, True) == 28, "optimisers work in float32"
    assert counted.card("NVIDIA H100 80GB HBM3") == dict(
        zip(("bf16", "tf32", "fp32", "bytes"), counted.CARDS["H100"], strict=True)
    )

"""What a rank of a scaling measures and writes, in a real training."""

from __future__ import annotations

import json
import statistics

from p2p_dist.checks.scaling import ranks as measuring
from p2p_dist.common import console


def test_measurements_are_added_to_those_of_an_earlier_call(new_run, ranks):
    run, settings = new_run("scaling", train={"steps": 7})
    (run.path / "plan.json").write_text(json.dumps({"share": 3, "global_batch": 2}))
    (run.path / "scaling.json").write_text(json.dumps({"weak": {"measured": [1.0, 1e9, 2.0]}, "strong": None}))
    assert ranks(1, measuring.scaling, run, settings) == [console.DONE]
    found = json.loads((run.path / "scaling.json").read_text())
    assert found["weak"]["measured"][:3] == [1.0, 1e9, 2.0] and found["all_reduce"] is None
    assert len(found["weak"]["measured"]) == 3 + measuring.PARTS and len(found["strong"]["measured"]) == measuring.PARTS
    for way, batch in (("weak", 3), ("strong", 2)):
        assert found[way]["batch"] == batch and 0 < found[way]["data_wait"] < 1
        assert found[way]["images_per_second"] == statistics.median(found[way]["measured"]) and min(found[way]["measured"]) > 0

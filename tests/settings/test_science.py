"""Science settings are compared by value."""

import dataclasses

from p2p_dist.settings import presets, science
from p2p_dist.settings.config import Config, Data, Resources
from p2p_dist.settings.fields import added


def _differences(saved, asked):
    return science.differences(science.recorded(saved), asked)


def test_resources_may_change_and_science_is_named():
    saved = presets.preset("small")
    moved = dataclasses.replace(saved, resources=Resources(nodes=8), data=dataclasses.replace(saved.data, root="/elsewhere"))
    assert _differences(saved, moved) == []
    assert presets.with_resources(saved, moved) == moved
    other = dataclasses.replace(moved, train=dataclasses.replace(saved.train, seed=3, log_every=1))
    assert _differences(saved, other) == ["train.seed: 0 -> 3"]
    heavier = dataclasses.replace(saved, train=dataclasses.replace(saved.train, l1_weight=7.0))
    assert _differences(saved, heavier) == ["train.l1-weight: 20.0 -> 7.0"], "as the option is spelled"
    assert presets.with_resources(saved, other).train.seed == 0
    assert presets.with_resources(saved, dataclasses.replace(moved, preset="tiny")) == moved
    assert presets.with_resources(saved, other).train.log_every == 1


def test_a_setting_that_came_later_leaves_what_was_made_before_as_it_is(tmp_path, monkeypatch):
    """It changes no name at the value that old records imply, and a run saved without it has that value, not the default."""
    later = dataclasses.make_dataclass("Later", [("pitch", int, added(5, implied=0))], bases=(Data,), frozen=True)
    old = Config(preset="small")
    assert science.recorded(later(pitch=0)) == science.recorded(Data()) != science.recorded(later())
    assert science.changed(later(pitch=0)) == science.changed(Data()) == {} != science.changed(later())
    assert science.recorded(dataclasses.replace(old, data=later(pitch=0))) == science.recorded(old)
    path = tmp_path / "config.yaml"
    path.write_text(presets.to_yaml(old))
    monkeypatch.setitem(presets.PRESETS, "small", dataclasses.replace(old, data=later()))
    assert presets.from_saved(path).data.pitch == 0
    assert presets.from_yaml(path).data.pitch == 5
    assert _differences(presets.from_saved(path), presets.PRESETS["small"]) == ["data.pitch: 0 -> 5"]

"""Settings: presets, YAML, precedence, what is science."""

import dataclasses

import pytest

from p2p_dist.settings.config import Config, Data, Evaluate, Model, Resources, Train


def test_every_field_has_a_help_text():
    import tyro

    for part in (Data, Model, Train, Evaluate, Resources):
        for field in dataclasses.fields(part):
            assert tyro._docstrings.get_field_docstring(part, field.name, ()), f"{part.__name__}.{field.name}"


SKETCH = Model(sketch=True)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"data": Data(task="bass")}, "for tasks that make drums alone, not for bass"),
        ({"data": Data(task="vocals->drums+bass")}, "for tasks that make drums alone"),
        ({"data": Data(representation="thesis")}, "needs data.representation default"),
        ({"data": Data(shards="there")}, "needs the songs themselves"),
        ({"data": Data(copies=1)}, "copies have another tempo"),
    ],
)
def test_sketches_are_of_drums_at_their_own_tempo(changed, why):
    with pytest.raises(ValueError, match=why):
        Config(model=SKETCH, **changed)
    assert Config(model=SKETCH, data=Data(task="vocals->drums")).model.guide_channels(1) == 1


@pytest.mark.parametrize(
    "name", ["beat_phase", "on_steps", "even_classes", "repeat_pattern", "soft_hats", "residual", "keep_level"]
)
def test_what_needs_a_sketch_says_so(name):
    with pytest.raises(ValueError, match=f"model.{name.replace('_', '-')} needs a sketch: add --model.sketch"):
        Model(**{name: True})
    assert Model(sketch=True, beat_phase=True).guide_channels(2) == 4

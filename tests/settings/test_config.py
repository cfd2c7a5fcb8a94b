"""Settings: presets, YAML, precedence, what is science."""

import dataclasses

from p2p_dist.settings.config import Data, Evaluate, Model, Resources, Train


def test_every_field_has_a_help_text():
    import tyro

    for part in (Data, Model, Train, Evaluate, Resources):
        for field in dataclasses.fields(part):
            assert tyro._docstrings.get_field_docstring(part, field.name, ()), f"{part.__name__}.{field.name}"

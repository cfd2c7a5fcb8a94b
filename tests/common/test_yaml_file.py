"""YAML files hold plain values."""

from __future__ import annotations

import re

import pytest

from p2p_dist.common import yaml_file
from p2p_dist.common.files import DamagedError
from p2p_dist.settings import presets


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: a is set more than once"),
        ("a: &x [1]\nb: *x", "line 2: an alias"),
        ("a: !!python/object:os.system x", "a tag"),
        ("[" * 100_000, "nested more than 32 deep"),
        ("- " * 50_000, "nested more than 32 deep"),
        ("? [1]\n: 2", "a name must be text"),
        ("!!int 1: 2", "a name must be text"),
        ("a: 1\n---\na: 2", "a second YAML document"),
        ("a:\n\tb: 1", "line 2: it begins with a tab: indent it with spaces"),
        ("a: %", "found character that cannot start any token"),
        ("a: [", "did not find expected node content"),
        ("a: \x00", "control characters are not allowed"),
        (b"a: \xff", "it is not UTF-8 text"),
    ],
)
def test_yaml_is_plain_values(tmp_path, text, said):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedError, match=re.escape(said)):
        yaml_file.read_yaml(path)


def test_yaml_that_the_program_writes_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.yaml"
    for preset in presets.PRESETS.values():
        path.write_text(presets.to_yaml(preset))
        assert presets.from_saved(path) == preset
    path.write_text("train: {seed: " + "9" * 5000 + "}")
    with pytest.raises(ValueError, match=r"a\.yaml: train\.seed"):
        presets.from_yaml(path)

"""Records of other versions: what older ones lack is what the code of their time implied, newer ones are refused."""

import json

import pytest

from p2p_dist.common import records, schemas
from p2p_dist.common.files import DamagedError


@pytest.mark.parametrize("name", schemas.TABLE)
def test_every_field_that_older_records_lack_has_a_value_of_its_shape(name):
    kind = schemas.TABLE[name]
    assert kind.before < kind.schema or name == "MANIFEST"
    for field, value in kind.implied.items():
        assert records.wrong({field: value}, {field: kind.shape[field]}) is None, field


def test_what_a_record_lacks_is_implied(tmp_path):
    (tmp_path / "dataset.json").write_text('{"name": "drums-default-0"}')
    found = records.read(tmp_path / "dataset.json", schemas.DATASET)
    assert found == {"schema": 0, "name": "drums-default-0", "training": None, "trained_on": None, "manifest": None}
    records.write(tmp_path / "dataset.json", schemas.DATASET, {"name": "a", "training": "b"})
    assert json.loads((tmp_path / "dataset.json").read_text()) == {"schema": 1, "name": "a", "training": "b"}
    assert records.read(tmp_path / "dataset.json", schemas.DATASET)["schema"] == 1


def test_a_record_of_a_newer_version_is_not_taken_for_damaged(tmp_path):
    """If it failed: a checkpoint of a newer version is set aside, and the training falls back."""
    path = tmp_path / "meta.json"
    path.write_text('{"schema": 99, "step": 5, "other": {}}')
    with pytest.raises(ValueError, match=r"meta.json has schema 99.*newer") as caught:
        records.read(path, schemas.CHECKPOINT)
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("text", ['{"schema": "1", "name": "a"}', '{"schema": -1, "name": "a"}', "[]", '{"schema": 1}'])
def test_a_damaged_one_is(text, tmp_path):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DamagedError):
        records.read(tmp_path / "dataset.json", schemas.DATASET)


def test_settings_are_by_value_or_a_digest():
    for settings in ({"train.seed": 0}, "0123456789ab", None):
        assert records.wrong({"step": 1, "settings": settings, "files": {}}, schemas.CHECKPOINT.shape) is None
    assert "settings is 5" in str(records.wrong({"step": 1, "settings": 5, "files": {}}, schemas.CHECKPOINT.shape))

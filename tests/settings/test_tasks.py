"""Tasks: what is heard and what is made."""

from p2p_dist.settings import config


def test_tasks():
    assert config.parse_task("drums") == (("bass", "other", "vocals"), ("drums",))
    assert config.parse_task("accompaniment") == (("vocals",), ("drums", "bass", "other"))
    assert config.parse_task(" drums ") == config.parse_task("drums")
    assert config.parse_task("vocals + other->bass+drums") == (("other", "vocals"), ("drums", "bass"))

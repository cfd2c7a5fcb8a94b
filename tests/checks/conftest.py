"""Type a check on this machine."""

import pytest

from p2p_dist.cli import check


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """`typed(*arguments, code=0)`: what launch/check.py prints of them."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "it's mine" / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def typed(*arguments, code=0):
        found = check.main(list(arguments))
        shown = "".join(capsys.readouterr())
        assert found == code, shown
        return shown

    return typed

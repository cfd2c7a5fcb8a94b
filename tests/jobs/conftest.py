"""Fixtures of the tests of jobs."""

import sys

import pytest

from p2p_dist.cli import submit


@pytest.fixture
def typed(stages_forked, capsys, monkeypatch):
    """`typed(*arguments, code=0)`: what launch/submit.py prints of them; its stages start at once."""

    def typed(*arguments, code=0):
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        found = submit.main(list(arguments))
        shown = capsys.readouterr().out
        assert found == code, shown
        return shown

    return typed

"""FAULTS.md says what the tests do."""

from __future__ import annotations

from tests.faults import table

FAULTS = set(range(1, 41))

WITH_A_SCHEDULER = {2, 9, 31, 40}
"""Those that only a real Slurm can do: their tests are in tests/slurm."""


def test_the_table_is_up_to_date():
    assert table.TABLE.read_text(encoding="utf-8") == table.table(), "run: python -m tests.faults.table"


def test_every_fault_has_a_test():
    found = [(set(numbers), test) for numbers, *_, test in table.rows()]
    here = {number for numbers, test in found if not test.startswith("slurm/") for number in numbers}
    assert here >= FAULTS - WITH_A_SCHEDULER, sorted(FAULTS - WITH_A_SCHEDULER - here)
    assert {number for numbers, test in found if test.startswith("slurm/") for number in numbers} >= WITH_A_SCHEDULER

"""FAULTS.md says what the tests do."""

from __future__ import annotations

from tests.faults import table

WITHOUT_A_SCHEDULER = {1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 24, 29, 33, 34, 35, 36, 37, 38, 39}
"""Rows of training, saving and reading that need no Slurm and no container."""


def test_the_table_is_up_to_date():
    assert table.TABLE.read_text(encoding="utf-8") == table.table(), "run: python -m tests.faults.table"


def test_every_fault_has_a_test():
    covered = {number for row in table.rows() for number in row[0]}
    assert covered >= WITHOUT_A_SCHEDULER, sorted(WITHOUT_A_SCHEDULER - covered)

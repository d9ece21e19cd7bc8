"""Each bad input of the table has one or two lines, with the value and the remedy, and its exit status."""

import os
from pathlib import Path

import pytest

from tests.bad_inputs.files import write_files
from tests.bad_inputs.harness import run_row
from tests.bad_inputs.rows import ROWS

MAX_LENGTH = 600
"""Characters of a message: a terminal's six lines."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad_inputs")
    write_files(path)
    return path


def test_the_table_has_a_hundred_rows_and_none_twice():
    inputs = [row.input for row in ROWS]
    assert len(inputs) >= 100 and len(set(inputs)) == len(inputs)


@pytest.mark.parametrize("row", ROWS, ids=[row.input for row in ROWS])
def test_a_bad_input_is_told_what_is_wrong_with_it_and_what_to_do(row, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "1000")
    before = sorted(os.listdir())
    outcome = run_row(row)
    assert outcome.status == row.status, outcome.message
    for part in row.expected:
        assert part in outcome.message
    assert "Traceback" not in outcome.message and len(outcome.message) < MAX_LENGTH
    assert set(os.listdir()) - set(before) <= {"logs", "checkpoints"} and not Path("was_run").exists()
    assert not list(Path().rglob("logs/**/*.ckpt"))

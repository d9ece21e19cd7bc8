"""The table in the terminal."""

import io

import pytest
from rich.console import Console

from lightning_adabelief.comparison.report import make_table
from tests.comparison.synthetic import make_cases

CASES = make_cases()


def render(case, width=80):
    drawn = CASES[case]
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(make_table(drawn.plan, drawn.stages, drawn.outcomes))
    return console.file.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_a_contender_is_one_line_of_80_columns(case):
    lines = render(case).splitlines()
    assert all(len(line) <= 80 for line in lines)
    names = [contender.name for contender in CASES[case].plan.contenders]
    rows = lines[2 : 2 + len(names)]
    assert all(row.startswith(name[:15]) for row, name in zip(rows, names, strict=True))
    assert all("…" not in row[27:] for row in rows)


def test_the_table_has_the_verdicts_and_the_answer():
    text = render("loss")
    adamw = next(line for line in text.splitlines() if line.startswith("adamw"))
    assert "better" in adamw and "-0.0081 ± 0.0031" in adamw
    assert "Yes: adamw is better by 0.0081" in text


def test_names_are_text_and_never_markup():
    assert "<b>a | b*" in render("names") and "[" not in render("names")

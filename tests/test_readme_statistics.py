"""The README's tables of statistics are the package's own."""

import re
from pathlib import Path

from lightning_adabelief import BeliefMonitor
from lightning_adabelief.beliefs.statistic import STATISTICS, markdown_table

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_tables_are_as_docs_statistic_tables_py_writes_them():
    tables = re.findall(r"<!-- statistics: (\w+) -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert dict(tables) == {scope: markdown_table(scope) for scope in ("layer", "optimizer")}


def test_the_monitors_documentation_has_each_statistic():
    assert "{statistics}" not in BeliefMonitor.__doc__
    assert all(f"``{row.name}``" in BeliefMonitor.__doc__ for row in STATISTICS)

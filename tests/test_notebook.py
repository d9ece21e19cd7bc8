"""The notebook runs as it stands, at a small size, and what it shows was kept from a run."""

import re
import runpy

import pytest

from tests.documents import ROOT

SCRIPT = runpy.run_path(str(ROOT / "docs/notebook.py"))
NOTEBOOK = SCRIPT["NOTEBOOK"]
SMALL = "EPOCHS = 2\nSEEDS = 1"


def tagged(cell, tag):
    return tag in cell.metadata.get("tags", [])


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The notebook with a training of two epochs."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = SCRIPT["read"]()
    (parameters,) = [cell for cell in notebook.cells if tagged(cell, "parameters")]
    assert re.findall(r"^\w+ =", parameters.source, re.MULTILINE) == re.findall(r"^\w+ =", SMALL, re.MULTILINE)
    parameters.source = SMALL
    return notebook


def shown(notebook):
    """Return all that a notebook's cells printed, and the kinds of pictures that they drew."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]
    return "".join(output.get("text", "") for output in outputs), kinds


def test_it_runs_as_far_as_the_heat_map(small, tmp_path):
    small.cells = [cell for cell in small.cells if not tagged(cell, "compare")]
    SCRIPT["execute"](small, tmp_path)
    text, pictures = shown(small)
    assert re.search(r"accuracy \d\.\d+", text) and pictures == ["image/png", "image/png"]
    assert list(tmp_path.glob("logs/**/belief.png"))


@pytest.mark.slow
def test_it_runs_to_the_end_of_the_comparison(small, tmp_path):
    SCRIPT["execute"](small, tmp_path)
    assert shown(small)[1] == ["image/png", "image/png", "image/svg+xml"]


def test_what_it_shows_is_of_a_run_from_nothing_and_small():
    cells = [cell for cell in SCRIPT["read"]().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert NOTEBOOK.stat().st_size < 400_000
    text, pictures = shown(SCRIPT["read"]())
    assert pictures == ["image/png", "image/png", "image/svg+xml"]
    assert not re.search(r"/tmp|/home|/root|site-packages", NOTEBOOK.read_text(encoding="utf-8"))


def test_its_install_line_is_of_the_wheel_that_is_built():
    text = NOTEBOOK.read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert set(re.findall(r"lightning_adabelief-([\d.]+)-py3", text)) == {version}


def test_its_links_lead_to_pages():
    links = re.findall(r"\]\(([\w-]+\.md)\)", NOTEBOOK.read_text(encoding="utf-8"))
    assert links and all((ROOT / "docs" / link).is_file() for link in links)

"""The site's pages: what they show runs, what they quote was measured, and the site builds without a warning."""

import os
import re
import runpy
import subprocess
import sys
import sysconfig
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from lightning_adabelief import BeliefMonitor
from lightning_adabelief.beliefs.statistic import STATISTICS
from tests import documents
from tests.documents import ROOT, SECTIONS, blocks, commands, outputs, read

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
PRINTING = [pair for page in PAGES for pair in outputs(page)]
NEEDS_A_PROCESS = "ModelParallelStrategy("
"""A word of the blocks that make process groups, which they do not undo."""

IN_PROCESS = [block for block in PYTHON if NEEDS_A_PROCESS not in block.values[0]]
SILENT = [block for block in IN_PROCESS if block.values[0] not in [pair.values[0] for pair in PRINTING]]

READMES = ["README.md", *(ROOT / "lightning_adabelief").glob("**/README.md")]
ALREADY_RUN = {command for readme in READMES for command in commands(readme)}
"""The commands that the tests of READMEs run."""

RESULT = re.compile(r"\[([^\]]*\d[^\]]*)\]\((?:\.\./)+(benchmarks/results/[^)#]+)\)")
PUBLIC = (
    "",
    ".beliefs",
    ".callbacks",
    ".landscapes",
    ".recipes.gan",
    ".recipes.image_classification",
    ".recipes.language_modeling",
    ".recipes.object_detection",
)
"""The packages all of whose ``__all__`` is public, and documented."""


def test_the_pages_have_the_blocks_that_are_looked_for_here():
    assert len(PYTHON) > 10 and len(PRINTING) > 4


@pytest.mark.parametrize("snippet", PYTHON)
def test_a_python_block_names_nothing_that_it_does_not_import(snippet):
    documents.check_names(snippet)


@pytest.mark.parametrize("snippet", SILENT)
def test_a_python_block_runs_and_what_it_configures_trains(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents.run(snippet)


@pytest.mark.slow
@pytest.mark.parametrize("snippet", [block for block in PYTHON if block not in IN_PROCESS])
def test_a_script_trains_in_a_process_of_its_own(snippet, tmp_path):
    (tmp_path / "script.py").write_text(snippet)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("snippet", "output"), PRINTING)
def test_a_python_block_prints_what_stands_under_it(snippet, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert documents.run(snippet).endswith(output)  # a Trainer tells of the model before


@pytest.mark.parametrize("snippet", [block for page in PAGES for block in blocks(page, "yaml")])
def test_a_yaml_block_is_a_config_of_known_sections(snippet):
    assert yaml.safe_load(snippet).keys() <= SECTIONS


@pytest.mark.parametrize("command", sorted({c for page in PAGES for c in commands(page)} - ALREADY_RUN))
def test_a_command_parses(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    documents.parse(command, capsys)


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_the_tables_are_as_docs_tables_py_writes_them(name):
    insert_tables = runpy.run_path(str(ROOT / "docs/tables.py"))["insert_tables"]
    assert insert_tables(read(name)) == read(name)


def test_a_figure_that_links_to_its_measurement_stands_there():
    links = [link for page in PAGES for link in RESULT.findall(read(page))]
    assert len(links) > 10
    for text, result in links:
        for number in re.findall(r"\d[\d,.e+-]*", text):
            assert number.rstrip(".,") in read(result), f"{text} links to {result}"


def test_every_statistic_has_a_section_with_its_definition():
    page = read("docs/beliefs.md")
    for row in STATISTICS:
        assert f"\n## {row.name}\n\n<!-- statistic: {row.name} -->\n" in page
        assert f"``{row.name}``" in BeliefMonitor.__doc__


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_on_a_page_of_the_api(package):
    documented = set(re.findall(r"^::: (\S+)$", "".join(read(page) for page in PAGES), re.MULTILINE))
    for name in import_module(f"lightning_adabelief{package}").__all__:
        places = {path for path in documented if path.endswith(f".{name}")}
        assert any(path.startswith(f"lightning_adabelief{package}.") for path in places) or (
            f"lightning_adabelief.{name}" in places
        )


def test_the_start_names_the_oldest_versions_that_are_supported():
    (oldest,) = re.findall(r"Python ([\d.]+), torch ([\d.]+) and Lightning ([\d.]+)", read("docs/index.md"))
    names = ('requires-python = "', '"torch', '"pytorch-lightning')
    for name, version in zip(names, oldest, strict=True):
        assert f"{name}>={version}" in read("pyproject.toml")


@pytest.mark.parametrize("script", ["pictures.py", "tables.py"])
def test_the_scripts_of_the_site_say_what_they_make(script):
    source = read(f"docs/{script}")
    for picture in re.findall(r'Picture\(\("(\w+)"', source):
        assert (ROOT / f"docs/beliefs/{picture}.png").stat().st_size < 100_000
    assert f"python docs/{script}" in source


@pytest.mark.skipif(not find_spec("mkdocs"), reason="needs the extra [docs], and that Python 3.11")
def test_the_site_builds_without_a_warning(tmp_path):
    mkdocs = Path(sysconfig.get_path("scripts")) / "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    api = [page.read_text(encoding="utf-8") for page in tmp_path.glob("api/**/index.html")]
    assert len(api) == 7 and any("<math" in page for page in api)
    untouched = re.compile(r"\.\. math::|:(class|meth|func|data|mod|attr):|Example::|\{statistics\}|<p>:::")
    assert not any(untouched.search(page) for page in api)

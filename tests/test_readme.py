"""The README's Python runs as it stands, its YAML is YAML, and its commands parse."""

import re

import pytest
import yaml

from tests import documents
from tests.documents import SECTIONS, blocks, commands, read

README = "README.md"


def test_the_readme_has_the_blocks_that_are_looked_for_here():
    assert blocks(README, "python") and blocks(README, "yaml") and len(commands(README)) >= 5


@pytest.mark.parametrize("snippet", blocks(README, "python"))
def test_a_python_block_names_nothing_that_it_does_not_import(snippet):
    documents.check_names(snippet)


@pytest.mark.parametrize("snippet", blocks(README, "python"))
def test_a_python_block_runs_and_what_it_configures_trains(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents.run(snippet)


@pytest.mark.parametrize("snippet", blocks(README, "yaml"))
def test_a_yaml_block_is_a_config_of_known_sections(snippet):
    assert yaml.safe_load(snippet).keys() <= SECTIONS


@pytest.mark.parametrize("command", commands(README))
def test_a_command_parses(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    documents.parse(command, capsys)


def test_the_comparisons_are_quoted_as_they_were_measured():
    (quoted,) = re.findall(r"<!-- comparisons -->\n(.*?)<!-- end -->", read(README), re.DOTALL)
    assert quoted in read("benchmarks/results/comparisons.md") and quoted.count("\n") > 4

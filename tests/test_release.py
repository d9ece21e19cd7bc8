"""The wheel and the sdist hold all of the package and nothing else, and the files around them agree on its version."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_adabelief"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

USE_THE_WHEEL = """
import torch
from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.fused.build import HEADERS, SOURCE
param = torch.nn.Parameter(torch.ones(3))
param.grad = torch.ones(3)
AdaBelief([param], fused=True).step()
print(SOURCE, *HEADERS, sep="\\n")
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist and, made from what the sdist holds, the wheel."""
    folder = tmp_path_factory.mktemp("distributions")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """A folder with the wheel's files alone, which its own environment would have among its packages."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(folder)
    return folder


def run(folder, *words, **variables):
    environment = os.environ | {"PYTHONPATH": str(folder), **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def read_version():
    return re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    ours = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert files == {path.relative_to(ROOT).as_posix() for path in ours}
    suffixes = {Path(name).suffix for name in files}
    assert suffixes == {".cpp", ".css", ".h", ".jinja", ".md", ".py", ".typed", ".yaml"}


def test_the_sdist_holds_what_tests_and_documents_need_and_nothing_that_git_ignores(distributions):
    with tarfile.open(distributions[0]) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}
    needed = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "mkdocs.yml", "pyproject.toml", "PKG-INFO"}
    needed |= {"lightning_adabelief/optim/fused/cpu.cpp", "tests/test_release.py", "docs/index.md", ".ci/run"}
    assert needed <= files
    folders = {name.partition("/")[0] for name in files if "/" in name}
    assert folders == {".ci", ".github", "benchmarks", "docs", "lightning_adabelief", "tests"}
    assert not [name for name in files if "__pycache__" in name or name.endswith((".pyc", ".so"))]


def test_an_index_would_take_both(distributions):
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *distributions], capture_output=True)
    assert done.returncode == 0, done.stdout


def test_the_installed_wheel_lists_its_recipes_and_tells_its_version(installed):
    main = "import sys; from lightning_adabelief.cli.main import main; sys.exit(main())"
    assert "digits-cnn" in run(installed, "-c", main, "list").stdout
    assert run(installed, "-c", main, "--version").stdout.split()[:2] == ["lightning-adabelief", read_version()]


def test_the_installed_wheel_compiles_its_kernel(installed):
    done = run(installed, "-c", USE_THE_WHEEL)
    assert all(Path(line).is_relative_to(installed) for line in done.stdout.split())


def test_the_entry_points_lead_to_what_is_there(installed):
    points = Distribution.at(next(installed.glob("*.dist-info"))).entry_points
    assert len(points) == 3 and all(callable(point.load()) for point in points)


def test_changelog_and_citation_are_of_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    latest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert latest.groups() == (read_version(), str(citation["date-released"]))
    assert citation["version"] == read_version() and citation["references"][0]["year"] == 2020


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_jobs_whose_steps_and_needs_are_there(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"} and workflow[True]  # "on", to YAML
    for job in workflow["jobs"].values():
        assert job.get("needs") in (None, *workflow["jobs"])
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
        else:
            assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_the_release_publishes_what_passed_the_checks_without_a_token():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    assert (jobs["publish"]["needs"], jobs["build"]["needs"]) == ("build", "checks")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_a_commit_is_asked_for_what_every_change_must_pass():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    for hook in local["hooks"]:
        assert hook["language"] == "system"  # the programs of [dev], so that there is one place for their versions
        assert any(line.startswith(hook["entry"]) for line in ci)

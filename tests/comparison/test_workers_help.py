"""The command with workers beside it, that have nothing but a folder or a database's URL; takes minutes."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.comparison.test_compare import CONFIG, ROOT

pytestmark = pytest.mark.slow


def start(*words):
    return subprocess.Popen([sys.executable, "-m", "lightning_adabelief", "compare", *words], cwd=ROOT)


def begin(folder, *options):
    config = folder / "users.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    words = [str(config), "--optimizers", "adamw,adabelief", "--seeds", "2", "--lr", "1", "--jobs", "1"]
    return start(*words, "--out", str(folder / "out"), *options)


def wait_for_trials(folder):
    """Wait until a trial has begun, so that there is something to help with."""
    while not list(folder.glob("trials/*/output.txt")):
        time.sleep(0.1)


def read_trials(folder):
    with (folder / "results.csv").open() as file:
        return [row["name"] for row in csv.DictReader(file)]


def list_run(*folders):
    return sorted(path.parent.name for folder in folders for path in Path(folder).glob("trials/*/outcome.json"))


def test_a_worker_with_the_folder_runs_some_of_the_trials(tmp_path):
    main = begin(tmp_path)
    wait_for_trials(tmp_path / "out")
    worker = start("--worker", str(tmp_path / "out"))
    assert main.wait() == 0 and worker.wait() == 0
    assert len(read_trials(tmp_path / "out")) == len(list_run(tmp_path / "out")) == 6


def test_workers_with_a_databases_url_run_some_of_the_trials(tmp_path, database):
    main = begin(tmp_path, "--storage", database)
    wait_for_trials(tmp_path / "out")
    workers = [start("--worker", database, "--out", str(tmp_path / name)) for name in ("one", "two")]
    assert main.wait() == 0 and [worker.wait() for worker in workers] == [0, 0]
    elsewhere = list_run(tmp_path / "one", tmp_path / "two")
    assert elsewhere, "the workers had nothing to do"
    assert sorted(read_trials(tmp_path / "out")) == list_run(tmp_path / "out", tmp_path / "one", tmp_path / "two")

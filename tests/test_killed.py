"""A run that is killed by SIGKILL, and resumed by the command, leaves what an uninterrupted one does."""

import importlib
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def script(monkeypatch):
    """The script that kills 20 times; here a run is killed as soon as it can be resumed."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    module = importlib.import_module("resume")

    def wait_for_last(process, folder, *_):
        while process.poll() is None and module.find_last(folder) is None:
            time.sleep(module.POLL_INTERVAL)

    monkeypatch.setattr(module, "wait_for_moment", wait_for_last)
    yield module
    for name in ("resume", "common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("recipe", ["digits-cnn", "digits-sngan"])
def test_a_killed_run_is_resumed_to_the_bit_with_no_row_twice_or_missing(recipe, script, tmp_path):
    found = script.kill_and_resume(recipe, tmp_path, kills=1, epochs=4, limit_train_batches=4, log_every_n_steps=1)
    assert (found.total, found.broken, len(found.differences)) == (1, 0, 1)
    assert found.differences == [[0] * 6]
    assert "ckpt_path: the run goes on in logs/" in (tmp_path / "run-0" / "output.txt").read_text(encoding="utf-8")


def test_a_logger_whose_version_has_no_folder_yet_is_passed_over(script, tmp_path):
    (tmp_path / "logs" / "csv").mkdir(parents=True)
    assert script.list_versions(tmp_path) == script.list_logs(tmp_path) == []
    assert script.find_last(tmp_path) is None

    (tmp_path / "logs" / "tensorboard" / "version_9").mkdir(parents=True)
    latest = tmp_path / "logs" / "tensorboard" / "version_10"
    latest.mkdir()
    assert script.list_versions(tmp_path) == [latest]

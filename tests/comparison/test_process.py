"""A trial's process, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lightning_adabelief.comparison import process
from lightning_adabelief.comparison.process import PARENT, make_command, run_trial
from lightning_adabelief.comparison.trial import Outcome

REGRESSION = "tests.comparison.users_module.RegressionWithOptimizer"
LINE = "tests.comparison.users_module.LineData"


def write_config(folder, **model):
    record = {"path": str(folder / "outcome.json"), "metric": "val_loss", "mode": "min", "optimizers": [SGD]}
    callbacks = {
        "ModelCheckpoint": {"monitor": "val_loss", "filename": "best"},
        "lightning_adabelief.comparison.record.TrialRecord": record,
        "lightning_adabelief.comparison.warmup.Warmup": {"warmup": 0.2},
    }
    trainer = {
        "default_root_dir": str(folder),
        "accelerator": "cpu",
        "max_epochs": 2,
        "num_sanity_val_steps": -1,
        "enable_progress_bar": False,
        "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": "logs"}},
        "callbacks": [{"class_path": name, "init_args": arguments} for name, arguments in callbacks.items()],
    }
    config = {
        "seed_everything": 3,
        "model": {"class_path": REGRESSION, "init_args": model},
        "data": {"class_path": LINE},
        "trainer": trainer,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


SGD = "torch.optim.SGD"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a trial that trains with SGD; the tests' modules can be imported."""
    monkeypatch.chdir(Path(__file__).parents[2])
    write_config(tmp_path, optimizer={"class_path": SGD, "init_args": {"lr": 0.1}})
    return tmp_path


def test_a_trial_is_a_plain_fit_whose_outcome_is_whole_and_whose_checkpoints_are_gone(folder):
    (folder / "logs" / "checkpoints").mkdir(parents=True)  # what a killed run of it has left
    (folder / "logs" / "metrics.csv").write_text("step\n")
    (folder / "outcome.json").write_text("{")
    started = []
    outcome = run_trial(folder, 1, started.append)
    assert outcome.status == "finished" and outcome.machine["threads"] == 1, outcome.error
    assert {"val_loss", "test_loss"} <= outcome.metrics.keys() and outcome.steps == 8
    assert [process.returncode for process in started] == [0]
    assert (folder / "logs" / "metrics.csv").stat().st_size > 20 and not list(folder.rglob("*.ckpt"))


def test_a_trial_whose_config_is_wrong_is_crashed_and_says_why(folder):
    write_config(folder, optimzer=SGD)
    outcome = run_trial(folder)
    assert outcome.status == "crashed" and "status 2" in outcome.error and "'optimzer'" in outcome.error
    assert len(outcome.error.splitlines()) <= process.MAX_ERROR_LINES + 1


def test_a_trial_that_was_killed_is_crashed_and_says_so(folder):
    outcome = run_trial(folder, on_start=lambda process: process.kill())
    assert outcome.status == "crashed" and "ended by SIGKILL" in outcome.error


WRITE = f"open('outcome.json', 'w').write({Outcome('diverged', steps=7).to_json()!r}); "


@pytest.mark.parametrize(
    "end, status",
    [("exit(1)", "diverged"), ("exit(143)", "crashed"), ("import os; os.kill(os.getpid(), 9)", "crashed")],
)
def test_a_run_that_diverged_may_fail_later_but_not_be_killed(folder, monkeypatch, end, status):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(process, "make_command", lambda folder: [sys.executable, "-c", WRITE + end])
    outcome = run_trial(folder)
    assert outcome.status == status and outcome.steps == 7


def test_an_interrupted_wait_leaves_no_process(folder, monkeypatch):
    def interrupt(trial):
        started.append(trial)
        raise KeyboardInterrupt

    started = []
    with pytest.raises(KeyboardInterrupt):
        run_trial(folder, on_start=interrupt)
    assert started[0].returncode == -signal.SIGKILL


def test_a_trials_process_is_the_command_that_is_shown_and_has_a_session_of_its_own(folder):
    seen = []

    def look(trial):
        seen.append((trial.args, os.getsid(trial.pid) == trial.pid))
        trial.kill()

    run_trial(folder, on_start=look)
    assert seen == [(make_command(folder), True)]
    assert seen[0][0][1:] == ["-m", "lightning_adabelief", "fit", "--config", f"{folder}/config.yaml"]


PARENT_THAT_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from lightning_adabelief.comparison.process import run_trial

def kill_self(trial):
    print(trial.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

run_trial(Path(sys.argv[1]), on_start=kill_self)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_trial_dies_with_its_worker(folder):
    worker = subprocess.run([sys.executable, "-c", PARENT_THAT_IS_KILLED, folder], capture_output=True, text=True)
    pid = int(worker.stdout)
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert worker.returncode == -signal.SIGKILL and not is_running(pid)
    assert not list(folder.glob("logs")), "it has not begun to train"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_a_trial_starts_does_not_take_its_parent_for_its_own(monkeypatch):
    monkeypatch.setenv(PARENT, str(os.getppid()))
    monkeypatch.setattr(process.sys, "platform", "darwin")
    process.die_with_parent()
    assert PARENT not in os.environ


def test_what_a_trial_has_started_ends_with_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    start = "import subprocess; print(subprocess.Popen(['sleep', '100']).pid)"
    monkeypatch.setattr(process, "make_command", lambda folder: [sys.executable, "-c", start])
    run_trial(folder)
    pid = int((folder / process.OUTPUT).read_text())
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)

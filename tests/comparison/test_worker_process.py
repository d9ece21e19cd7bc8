import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_adabelief.comparison.worker_process import WorkerProcess, _read_start

on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system tells no process's start")


@pytest.fixture
def sleeping():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def of_process(process):
    return replace(WorkerProcess.current(), pid=process.pid, started=_read_start(process.pid) or "")


def test_this_process_lives():
    assert not WorkerProcess.current().is_dead()


def test_a_process_is_dead_after_its_end(sleeping):
    worker = of_process(sleeping)
    assert not worker.is_dead()
    sleeping.kill()
    sleeping.wait()
    assert worker.is_dead()


@on_linux
def test_a_killed_process_is_dead_before_its_parent_notices(sleeping):
    worker = of_process(sleeping)
    sleeping.kill()
    while "Z" not in Path(f"/proc/{sleeping.pid}/stat").read_text().rpartition(")")[2]:
        pass
    assert worker.is_dead()


@on_linux
def test_a_process_that_has_got_the_number_of_another_is_not_it(sleeping):
    assert replace(of_process(sleeping), started="1").is_dead()


def test_without_a_start_the_number_tells(sleeping):
    worker = replace(of_process(sleeping), started="")
    assert not worker.is_dead()
    sleeping.kill()
    sleeping.wait()
    assert worker.is_dead()


def test_of_another_machine_nothing_is_known(sleeping):
    assert not replace(of_process(sleeping), host="elsewhere", started="1").is_dead()

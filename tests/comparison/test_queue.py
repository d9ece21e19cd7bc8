import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lightning_adabelief.comparison import queue as queue_module
from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.comparison.queue import Queue, TicketLost, list_comparisons
from lightning_adabelief.comparison.trial import Outcome
from tests.comparison.quick_worker import make_trial

TRIALS = [make_trial("tuning", rate) for rate in (0.1, 0.2, 0.3)]
DONE = Outcome("finished", {"score": 1.0}, seconds=2.0)
CRASHED = Outcome("crashed", error="RuntimeError: no memory")


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "queue.log")


@pytest.fixture(params=["journal", "database"])
def any_storage(request, tmp_path):
    return str(tmp_path / "queue.log") if request.param == "journal" else request.getfixturevalue("database")


def open_queue(storage):
    return Queue(storage, "digest")


def begin(storage):
    queue = open_queue(storage)
    queue.add_stage("tuning", TRIALS)
    return queue


def take_in_another_process(storage):
    """Take a trial in a process that is then killed, so that nothing of it is given back."""
    code = f"""
import os
from lightning_adabelief.comparison.queue import Queue
Queue({storage!r}, "digest").take("tuning")
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9


def take_names(queue, stage="tuning"):
    tickets = iter(lambda: queue.take(stage), None)
    return [ticket.trial.name for ticket in tickets]


def test_trials_are_taken_once_in_order(storage):
    queue = begin(storage)
    assert take_names(queue) == [trial.name for trial in TRIALS]
    assert queue.take("tuning") is None


def test_a_stage_that_two_workers_begin_at_once_has_each_trial_once(any_storage):
    first, second = open_queue(any_storage), open_queue(any_storage)
    find_attempts = second._read_attempts
    second._read_attempts = lambda stage: (find_attempts(stage), first.add_stage(stage, TRIALS))[0]
    second.add_stage("tuning", TRIALS)
    assert len(second._open_study("tuning").get_trials()) == 2 * len(TRIALS)
    second._read_attempts = find_attempts
    assert take_names(second) == [trial.name for trial in TRIALS]


def test_progress_tells_outcomes_and_what_runs(any_storage):
    queue = begin(any_storage)
    queue.finish(queue.take("tuning"), DONE)
    queue.finish(queue.take("tuning"), CRASHED)
    queue.take("tuning")
    progress = open_queue(any_storage).read()
    assert progress.stages == {"tuning": TRIALS}
    assert progress.outcomes == {TRIALS[0].name: DONE, TRIALS[1].name: CRASHED}
    assert progress.running[TRIALS[2].name].pid == os.getpid()
    assert progress.durations.keys() == progress.outcomes.keys()


def test_figures_that_are_not_finite_are_kept(any_storage):
    queue = begin(any_storage)
    queue.finish(queue.take("tuning"), Outcome("diverged", {"val/loss": float("inf")}))
    assert open_queue(any_storage).read().outcomes[TRIALS[0].name].metrics == {"val/loss": float("inf")}


def test_a_trial_given_back_is_taken_again(storage):
    queue = begin(storage)
    queue.give_back(queue.take("tuning"))
    assert sorted(take_names(queue)) == sorted(trial.name for trial in TRIALS)


def test_a_killed_workers_trial_is_recovered_and_a_living_ones_is_not(any_storage):
    queue = begin(any_storage)
    queue.take("tuning")
    take_in_another_process(any_storage)
    queue.recover("tuning")
    assert take_names(queue) == [TRIALS[2].name, TRIALS[1].name]


def test_an_outcome_that_was_written_before_a_kill_counts(storage, monkeypatch):
    queue = begin(storage)
    ticket = queue.take("tuning")
    monkeypatch.setattr(queue, "_close", lambda *arguments: None)
    queue.finish(ticket, DONE)
    monkeypatch.undo()
    monkeypatch.setattr(queue_module.WorkerProcess, "is_dead", lambda worker: True)
    queue.recover("tuning")
    assert queue.read().outcomes == {TRIALS[0].name: DONE}
    queue.retry_crashed("tuning")
    assert len(take_names(queue)) == 2


@pytest.mark.parametrize("claimed, limit", [(True, "STALE_SECONDS"), (False, "UNCLAIMED_SECONDS")])
def test_a_trial_without_a_sign_of_life_is_recovered(any_storage, monkeypatch, claimed, limit):
    queue = begin(any_storage)
    monkeypatch.setattr(queue_module.WorkerProcess, "is_dead", lambda worker: False)
    clock = [1000.0]
    monkeypatch.setattr(queue_module.time, "monotonic", lambda: clock[0])
    if claimed:
        ticket = queue.take("tuning")
    else:
        queue._open_study("tuning").ask()
    watcher = open_queue(any_storage)
    for _ in range(int(getattr(queue_module, limit) / 5) + 1):
        assert len(watcher._open_study("tuning").get_trials()) == len(TRIALS)
        watcher.recover("tuning")
        clock[0] += 5
    watcher.recover("tuning")
    assert len(take_names(watcher)) == len(TRIALS)
    if claimed:
        with pytest.raises(TicketLost, match=TRIALS[0].name):
            queue.beat(ticket)
        with pytest.raises(TicketLost):
            queue.finish(ticket, DONE)


def test_beats_keep_a_trial_from_being_recovered(storage, monkeypatch):
    queue = begin(storage)
    ticket = queue.take("tuning")
    clock = [1000.0]
    monkeypatch.setattr(queue_module.time, "monotonic", lambda: clock[0])
    watcher = open_queue(storage)
    for _ in range(100):
        queue.beat(ticket)
        watcher.recover("tuning")
        clock[0] += 15
    assert len(take_names(watcher)) == 2


def test_an_outage_is_not_taken_for_the_death_of_a_worker(storage, monkeypatch):
    queue = begin(storage)
    queue.take("tuning")
    clock = [1000.0]
    monkeypatch.setattr(queue_module.time, "monotonic", lambda: clock[0])
    watcher = open_queue(storage)
    watcher.recover("tuning")
    clock[0] += 1000
    watcher.recover("tuning")
    assert len(take_names(watcher)) == 2


def test_crashed_trials_wait_again_only_when_asked(any_storage):
    queue = begin(any_storage)
    for _ in TRIALS:
        queue.finish(queue.take("tuning"), CRASHED)
    queue.recover("tuning")
    queue.add_stage("tuning", TRIALS)
    assert queue.take("tuning") is None
    queue.retry_crashed("tuning")
    assert not queue.read().outcomes
    assert len(take_names(queue)) == len(TRIALS)


def test_a_crash_is_not_tried_again_by_a_duplicate(storage):
    queue = begin(storage)
    study = queue._open_study("tuning")
    study.add_trial(study.get_trials()[0])  # as two workers enqueue at once
    queue.finish(queue.take("tuning"), CRASHED)
    assert take_names(queue) == [TRIALS[1].name, TRIALS[2].name]


def test_stages_are_in_the_order_in_which_they_began(storage):
    queue = begin(storage)
    queue.write_plan("plan")
    for stage in ("tuning-2", "report", "aftermath"):
        queue.add_stage(stage, [make_trial(stage, 1.0)])
    assert list(queue.read().stages) == ["tuning", "tuning-2", "report", "aftermath"]


def test_a_storage_holds_several_comparisons(any_storage):
    assert open_queue(any_storage).read_plan() is None
    for name in ("one", "two"):
        queue = Queue(any_storage, name)
        queue.write_plan(f"plan of {name}")
        queue.add_stage("tuning", [replace(TRIALS[0], name=name)])
    assert list_comparisons(any_storage) == ["one", "two"]
    assert Queue(any_storage, "two").read_plan() == "plan of two"
    assert Queue(any_storage, "one").read().stages == {"tuning": [replace(TRIALS[0], name="one")]}


def test_half_a_line_of_a_killed_writer_is_dropped(storage):
    begin(storage)
    with open(storage, "a") as file:
        file.write('{"op_code": 8, "user_at')
    queue = open_queue(storage)
    ticket = queue.take("tuning")
    queue.finish(ticket, DONE)
    assert open_queue(storage).read().outcomes == {ticket.trial.name: DONE}


def test_a_killed_workers_lock_is_taken_over(storage, monkeypatch):
    begin(storage)
    monkeypatch.setattr("lightning_adabelief.comparison.storage.LOCK_SECONDS", 3)
    monkeypatch.chdir(os.path.dirname(storage))
    open("queue.log.lock", "w").close()
    assert open_queue("queue.log").take("tuning") is not None


@pytest.mark.parametrize(
    "storage, message",
    [
        ("/nowhere/queue.log", "no folder /nowhere"),
        ("postgresql+psycopg://me:secret@localhost:1/none", r"me:\*\*\*@localhost:1/none can't be used: .*refused"),
        ("mysql+absent://me:secret@localhost/none", "is not a database's URL"),
        ("mysql+pymysql://me:secret@localhost/none", r"driver of .*:\*\*\*@.* is missing: No module named 'pymysql'"),
        ("://", "is not a database's URL"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(storage, message):
    with pytest.raises(PlanError, match=message) as error:
        Queue(storage, "digest")
    assert "secret" not in str(error.value)

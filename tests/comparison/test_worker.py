import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from lightning_adabelief.comparison import worker
from lightning_adabelief.comparison.queue import Queue
from lightning_adabelief.comparison.trial import Outcome
from lightning_adabelief.comparison.worker import TrialsCrashed, work
from tests.comparison.quick_worker import COMPARISON, make_trial, score, work_quickly

TRIALS = [make_trial("tuning", rate) for rate in (0.1, 0.2, 0.3, 0.4)]


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "POLL_SECONDS", 0.05)
        return work_quickly(str(folder / "queue.log"), folder / "log", jobs=4, seconds=0)


def start_worker(storage, log, jobs=2, seconds=0.02):
    command = [sys.executable, "-m", "tests.comparison.quick_worker", storage, str(log), str(jobs), str(seconds)]
    return subprocess.Popen(command)


def one_stage(stages, outcomes):
    return None if stages else ("tuning", TRIALS)


def open_queue(tmp_path):
    return Queue(str(tmp_path / "queue.log"), "digest")


def sleep(seconds, on_start):
    """Run a process as a trial does, and return its outcome."""
    process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    on_start(process)
    return Outcome("crashed" if process.wait() else "finished", error="killed")


def check_result(storage, log, undisturbed):
    """Each trial has one outcome, that of an undisturbed comparison."""
    queue = Queue(storage, COMPARISON)
    progress = queue.read()
    assert progress.stages == undisturbed.stages
    assert progress.outcomes == undisturbed.outcomes
    assert not progress.running
    completed = Counter(
        frozen.user_attrs["name"]
        for stage in progress.stages
        for frozen in queue._open_study(stage).get_trials()
        if frozen.state.name == "COMPLETE"
    )
    assert completed == Counter(undisturbed.outcomes.keys())
    return Counter(Path(log).read_text().split())


def kill_and_restart(storage, log, kills, workers, seconds, pause):
    """Kill one worker after another at random moments, and start another one in its place."""
    chance = random.Random(0)
    running = [start_worker(storage, log, 2, seconds) for _ in range(workers)]
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(*pause))
            place = chance.randrange(workers)
            running[place].kill()
            running[place].wait()
            running[place] = start_worker(storage, log, 2, seconds)
        assert [process.wait(timeout=120) for process in running] == [0] * workers
    finally:
        for process in running:
            process.kill()


def test_four_workers_run_each_trial_once(tmp_path, undisturbed):
    storage, log = str(tmp_path / "queue.log"), tmp_path / "log"
    running = [start_worker(storage, log) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    runs = check_result(storage, log, undisturbed)
    assert set(runs.values()) == {1}


def test_a_comparison_killed_over_and_over_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    storage, log = str(tmp_path / "queue.log"), tmp_path / "log"
    kill_and_restart(storage, log, kills=4, workers=2, seconds=0.4, pause=(0.2, 1.0))
    check_result(storage, log, undisturbed)


@pytest.mark.slow
def test_four_workers_make_the_tables_of_a_database_and_run_each_trial_once(tmp_path, database, undisturbed):
    running = [start_worker(database, tmp_path / "log") for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    runs = check_result(database, tmp_path / "log", undisturbed)
    assert set(runs.values()) == {1}


@pytest.mark.slow
def test_a_comparison_in_a_database_killed_twenty_times_ends_as_an_undisturbed_one(tmp_path, database, undisturbed):
    kill_and_restart(database, tmp_path / "log", kills=20, workers=3, seconds=2.0, pause=(0.2, 3.0))
    check_result(database, tmp_path / "log", undisturbed)


@pytest.mark.slow
def test_a_comparison_killed_fifty_times_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    storage, log = str(tmp_path / "queue.log"), tmp_path / "log"
    kill_and_restart(storage, log, kills=50, workers=4, seconds=2.0, pause=(0.1, 1.2))
    check_result(storage, log, undisturbed)


def test_stages_follow_from_outcomes(undisturbed):
    assert {stage: len(trials) for stage, trials in undisturbed.stages.items()} == {
        "tuning": 24,
        "tuning-2": 2,
        "report": 6,
    }
    assert {trial.lr for trial in undisturbed.stages["report"]} == {23.25}


def test_a_comparison_that_is_done_runs_nothing_again(tmp_path):
    ran = []

    def run(trial, on_start):
        ran.append(trial.name)
        return score(trial)

    first = work(open_queue(tmp_path), one_stage, run, jobs=1)
    assert work(open_queue(tmp_path), one_stage, run, jobs=1) == first
    assert ran == [trial.name for trial in TRIALS]


def test_progress_is_shown_from_the_first_trial_to_the_last(tmp_path):
    shown = []
    work(open_queue(tmp_path), one_stage, lambda trial, on_start: score(trial), 1, shown.append)
    assert [len(progress.outcomes) for progress in shown] == [0, 1, 2, 3, 4]
    assert [list(progress.running) for progress in shown] == [*([trial.name] for trial in TRIALS), []]


def test_a_signal_kills_what_runs_and_gives_it_back(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    started = []

    def run(trial, on_start):
        return sleep(60, lambda process: (started.append(process), on_start(process)))

    def interrupt(progress):
        if len(progress.running) == 2 and len(started) == 2:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            work(open_queue(tmp_path), one_stage, run, 2, interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    progress = open_queue(tmp_path).read()
    assert not progress.outcomes and not progress.running
    assert len(work(open_queue(tmp_path), one_stage, lambda trial, on_start: score(trial), 1).outcomes) == len(TRIALS)


def test_a_trial_whose_process_is_killed_runs_again(tmp_path):
    kills = []

    def run(trial, on_start):
        def kill_first_two(process):
            on_start(process)
            if len(kills) < 2:
                kills.append(trial.name)
                process.kill()

        return sleep(0.01, kill_first_two)

    progress = work(open_queue(tmp_path), one_stage, run, jobs=1)
    assert kills == [TRIALS[0].name] * 2
    assert {outcome.status for outcome in progress.outcomes.values()} == {"finished"}


def test_a_trial_that_is_killed_each_time_counts_as_crashed(tmp_path):
    runs = Counter()

    def run(trial, on_start):
        runs[trial.name] += 1
        return sleep(0.01, lambda process: (on_start(process), trial == TRIALS[0] and process.kill()))

    with pytest.raises(TrialsCrashed, match=f"(?s)1 of 4 trials crashed: {TRIALS[0].name}. The same .*killed"):
        work(open_queue(tmp_path), one_stage, run, jobs=1)
    assert runs[TRIALS[0].name] == worker.MAX_KILLS


def test_crashes_end_the_stage_and_are_tried_again_by_the_next_worker(tmp_path):
    ran = []

    def run(trial, on_start):
        ran.append(trial.name)
        return Outcome("crashed", error="no memory") if trial == TRIALS[1] and len(ran) <= 4 else score(trial)

    with pytest.raises(TrialsCrashed, match=rf"(?s)1 of 4 trials crashed: {TRIALS[1].name}\..*no memory"):
        work(open_queue(tmp_path), one_stage, run, jobs=1)
    progress = work(open_queue(tmp_path), one_stage, run, jobs=1)
    assert ran == [*(trial.name for trial in TRIALS), TRIALS[1].name]
    assert {outcome.status for outcome in progress.outcomes.values()} == {"finished"}


def test_a_worker_gives_up_where_the_first_trials_all_crash(tmp_path):
    ran = []

    def run(trial, on_start):
        ran.append(trial.name)
        raise OSError("No space left on device")

    with pytest.raises(TrialsCrashed, match="(?s)All of the first 3 trials crashed.*No space left"):
        work(open_queue(tmp_path), one_stage, run, jobs=1)
    assert len(ran) == worker.MAX_FIRST_CRASHES


def test_a_trial_that_another_worker_was_given_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0)
    queue = open_queue(tmp_path)
    started, processes = [], []

    def run(trial, on_start):
        started.append(trial.name)
        return sleep(20 if len(started) == 1 else 0, lambda process: (processes.append(process), on_start(process)))

    def take_away(progress):
        if len(progress.running) == 1 and len(processes) == 1:
            study = queue._open_study("tuning")
            study.tell(0, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

    progress = work(queue, one_stage, run, 1, take_away)
    assert processes[0].returncode == -signal.SIGKILL
    assert started == [TRIALS[0].name, *(trial.name for trial in TRIALS[1:]), TRIALS[0].name]
    assert {outcome.status for outcome in progress.outcomes.values()} == {"finished"}


def test_an_outage_of_the_storage_is_waited_out(tmp_path):
    queue = open_queue(tmp_path)
    queue.add_stage(*one_stage({}, {}))
    journal, aside = tmp_path / "queue.log", tmp_path / "aside"
    ran = []

    def run(trial, on_start):
        ran.append(trial.name)
        if len(ran) == 2:
            journal.rename(aside)
            threading.Timer(0.5, aside.rename, [journal]).start()
        return score(trial)

    progress = work(queue, one_stage, run, jobs=1)
    assert ran == [trial.name for trial in TRIALS]
    assert len(progress.outcomes) == len(TRIALS)


def test_a_database_may_be_restarted(tmp_path, postgres, database):
    ran = []

    def run(trial, on_start):
        ran.append(trial.name)
        if len(ran) == 2:
            postgres.stop()
            threading.Timer(0.5, postgres.start).start()
        return score(trial)

    progress = work(Queue(database, "digest"), one_stage, run, jobs=1)
    assert ran == [trial.name for trial in TRIALS]
    assert len(progress.outcomes) == len(TRIALS)


def test_the_storage_may_not_be_out_of_reach_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "OUTAGE_SECONDS", 0.2)
    queue = open_queue(tmp_path)

    def run(trial, on_start):
        os.rename(tmp_path / "queue.log", tmp_path / "aside")
        return score(trial)

    with pytest.raises(FileNotFoundError, match=r"queue\.log"):
        work(queue, one_stage, run, jobs=1)

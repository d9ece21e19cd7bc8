import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from lightning_adabelief.comparison.display import Display, describe_time_left
from lightning_adabelief.comparison.plan import make_plan
from lightning_adabelief.comparison.plan_table import make_plan_table
from lightning_adabelief.comparison.progress import Progress
from lightning_adabelief.comparison.stages import next_stage
from lightning_adabelief.comparison.trial import Outcome
from lightning_adabelief.comparison.worker_process import WorkerProcess
from lightning_adabelief.settings import read_settings


@pytest.fixture(scope="module")
def plan():
    settings = read_settings(["fit", "--config", "digits-cnn"]).tree
    optimizers = ["adabelief", "adamw", "sgd-nesterov"]
    return make_plan("digits-cnn", settings, optimizers, seeds=4, metric="val/accuracy", mode="max")


def make_outcome(plan, trial):
    if trial.relative_lr > 5:
        return Outcome("diverged", untrained=0.1)
    score = 0.9 - abs(trial.relative_lr - 1) / 10 + trial.seed / 1e5
    return Outcome("finished", {plan.metric: score, "test/accuracy": score - 0.05})


def run_until(plan, ended):
    """The state of a comparison after a number of runs of 60 s each, while the next two run, one on another machine."""
    progress = Progress()
    while (following := next_stage(plan, progress.stages, progress.outcomes)) is not None:
        stage, progress.stages[stage] = following
        for place, trial in enumerate(progress.stages[stage]):
            if len(progress.outcomes) == ended:
                here = replace(WorkerProcess.current(), since=time.time() - 29.5)
                workers = [here, replace(here, host="node17 pid:[1]")]
                names = [left.name for left in progress.stages[stage][place : place + 2]]
                progress.running.update(zip(names, workers, strict=False))
                return progress
            progress.outcomes[trial.name] = make_outcome(plan, trial)
            progress.durations[trial.name] = 60.0
    return progress


def draw(plan, progress, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    display = Display(plan, 2, console)
    display.update(progress)
    console.print(display)
    return console.file.getvalue()


def cells(text, first):
    """The words of the line that begins with a word."""
    (line,) = [line for line in text.splitlines() if line.startswith(first + " ")]
    return line.split()


def test_a_comparison_that_begins_shows_what_lies_ahead(plan):
    text = draw(plan, run_until(plan, 0))
    assert "0 of 27 runs" in text
    assert cells(text, "tuning")[-1] == "0/15" and cells(text, "report")[-1] == "0/12"
    assert "so far" not in text


def test_what_runs_is_shown_with_its_time_and_place(plan):
    progress = run_until(plan, 3)
    text = draw(plan, progress)
    here, elsewhere = progress.running
    assert cells(text, here)[1] in ("0:29", "0:30", "0:31")
    assert cells(text, elsewhere)[2:] == ["on", "node17"]


def test_failures_are_counted(plan):
    progress = run_until(plan, 15)
    crashed = progress.stages["tuning"][0].name
    progress.outcomes[crashed] = Outcome("crashed", error="no memory")
    assert "15/15  1 crashed, 3 diverged" in draw(plan, progress)


def test_the_standing_tells_rates_and_means(plan):
    text = draw(plan, run_until(plan, 15 + 5))
    assert "20 of 27 runs" in text
    lr, tuned, reported, _, _, seeds = cells(text, "adamw")[1:]
    assert (lr, tuned, seeds) == ("0.003", "0.91", "2")
    assert float(reported) == pytest.approx(0.85, abs=1e-4)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_terminal_and_nothing_of_importance_is_cut(plan, width):
    text = draw(plan, run_until(plan, 15 + 5), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text


def test_time_to_go_is_shared_by_the_workers(plan):
    progress = run_until(plan, 15)
    assert (
        describe_time_left(plan, progress, jobs=2) == "5.5 min to go"
    )  # 12 runs of 60 s, two of them nearly half done
    assert describe_time_left(plan, progress, jobs=10) == "66 s to go"
    assert describe_time_left(plan, Progress(), jobs=2) == "time to go: known after the first"
    assert describe_time_left(plan, run_until(plan, 27), jobs=2) == "done"


def test_elsewhere_than_in_a_terminal_a_line_is_printed_for_each_run_that_ends(plan):
    console = Console(width=80, file=io.StringIO())
    with Display(plan, 2, console) as display:
        for ended in (2, 2, 3, 5, 16):
            display.update(run_until(plan, ended))
    first, *lines = console.file.getvalue().splitlines()
    assert first == "2 of 27 runs are done"
    assert len(lines) == 14
    assert lines[0] == "[3/27] tuning adabelief-lr0.003-seed1000: val/accuracy 0.91 in 60 s, 11.5 min to go"
    assert lines[2].startswith("[5/27] tuning adabelief-lr0.03-seed1000: diverged in 60 s")
    assert "report adabelief-lr0.003-seed0: test/accuracy 0.85 in" in lines[-1]


def test_the_picture_is_removed_at_the_end(plan):
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    with Display(plan, 1, console) as display:
        display.update(run_until(plan, 3))
    assert console.file.getvalue().endswith("\x1b[2K")


def test_the_last_picture_stays_after_an_error(plan):
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    with pytest.raises(RuntimeError), Display(plan, 1, console) as display:
        display.update(run_until(plan, 3))
        raise RuntimeError
    last = console.file.getvalue().rpartition("digits-cnn")[2]
    assert "3 of 27 runs" in last and "\x1b[2K" not in last


def test_a_plans_table_counts_runs_and_time(plan):
    console = Console(width=80, file=io.StringIO())
    console.print(make_plan_table(plan, 60.0))
    text = console.file.getvalue()
    assert "chosen by val/accuracy, compared by test/accuracy; larger is better" in text
    assert cells(text, "tuning") == ["tuning", "3", "5", "1", "1", "15", "15.0", "min"]
    assert cells(text, "report") == ["report", "3", "1", "1", "4", "12", "12.0", "min"]
    assert cells(text, "widened")[-7:] == ["up", "to", "12", "up", "to", "12.0", "min"]
    assert cells(text, "all") == "all 27 to 39 27.0 min to 39.0 min".split()
    assert cells(text, "sgd-nesterov")[1:6] == ["0.03", "0.096", "0.3", "0.96", "3"]


def test_a_plans_table_does_not_invent_a_time(plan):
    console = Console(width=80, file=io.StringIO())
    console.print(make_plan_table(plan))
    assert cells(console.file.getvalue(), "all")[-1] == "unknown"

"""The comparison as one function: make the plan or find it, run its trials, write the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any, Literal

from lightning_adabelief.comparison.display import Display
from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.comparison.plan import Plan, find_differences, make_plan
from lightning_adabelief.comparison.process import run_trial
from lightning_adabelief.comparison.progress import Progress
from lightning_adabelief.comparison.queue import Queue, list_comparisons
from lightning_adabelief.comparison.report import make_table, write_report
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT, next_stage
from lightning_adabelief.comparison.statistics import Comparison
from lightning_adabelief.comparison.storage import hide_password
from lightning_adabelief.comparison.trial import Outcome, Trial
from lightning_adabelief.comparison.trial_config import write_config
from lightning_adabelief.comparison.worker import work
from lightning_adabelief.files import check_writable, replace_file
from lightning_adabelief.settings import read_settings

if TYPE_CHECKING:
    from rich.table import Table

PLAN = "plan.json"
QUEUE = "queue.log"
TRIALS = "trials"


@dataclass(frozen=True)
class Result:
    """The result of a comparison.

    Attributes:
        table: A row an optimizer, and the answer in two sentences; for ``rich.print``.
        metric: The metric that the optimizers are compared by.
        values: Its values by seed, for each optimizer.
        comparisons: For each optimizer but the first, its difference to the first, and how certain that is.
        report: The file ``report.html``; ``report.md``, ``results.csv`` and ``history.csv`` lie beside it.
    """

    table: Table
    metric: str
    values: dict[str, dict[int, float]]
    comparisons: dict[str, Comparison]
    report: Path


def compare(
    config: str | Path,
    optimizers: Sequence[str | Mapping[str, Any]] = ("adabelief", "adamw"),
    *,
    out: str | Path,
    seeds: int = 5,
    tuning_seeds: int = 1,
    lr: Sequence[float] | None = None,
    weight_decay: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    vary: str | None = None,
    jobs: int = 1,
    storage: str | None = None,
) -> Result:
    """Compare optimizers on a recipe, or on any config of the Lightning CLI.

    Each optimizer's learning rate is chosen on tuning seeds, from the same grid relative to its usual rate; then all
    are run on fresh seeds. Each trial is an ``adabelief fit`` in a process of its own. A comparison that was stopped
    goes on when it is called again.

    Args:
        config: A recipe's name or a config's path.
        optimizers: Names (``"adabelief"``, ``"adamw"``, ``"sgd"``, ...), class paths, or mappings of ``class_path``,
            ``init_args`` and ``name``. The others are compared with the first.
        out: The folder of the comparison.
        seeds: The number of seeds of the report.
        tuning_seeds: The number of other seeds, that learning rates and weight decays are chosen on.
        lr: Learning rates, as multiples of each optimizer's usual one; None for 0.1, 0.32, 1, 3.2 and 10.
        weight_decay: Weight decays; None for the config's.
        settings: Options of ``adabelief fit`` for all trials: ``{"trainer.max_epochs": 5}``.
        metric: The validation metric to choose by; None for the one of the config's ModelCheckpoint.
        mode: ``"min"`` or ``"max"``; None for the config's.
        vary: The key of the one optimizer to vary where a config has several; None for all.
        jobs: The number of trials that run at the same time.
        storage: The URL of a database for the queue, which workers on other machines share; None for a file in
            ``out``.

    Returns:
        The comparison's table, and where its report is.

    Raises:
        PlanError: If the comparison is not possible, or the folder holds another one.
        OSError: If the folder can't be written.

    Example::

        result = lightning_adabelief.compare("digits-cnn", ["adabelief", "adamw"], out="digits", jobs=2)
        rich.print(result.table)
    """
    plan = read_plan(
        config,
        optimizers,
        [f"--{key}={'null' if value is None else value}" for key, value in (settings or {}).items()],
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        relative_rates=lr,
        weight_decays=weight_decay,
        metric=metric,
        mode=mode,
        vary=vary,
    )
    return run_plan(plan, out, jobs, storage)


def read_plan(config: str | Path, optimizers: Any, words: Sequence[str] = (), **options: Any) -> Plan:
    """Make the plan of a comparison from a config's name or path.

    Args:
        config: A recipe's name or a config's path.
        optimizers: As for :func:`compare`.
        words: Options of ``adabelief fit`` for all trials: ``--trainer.max_epochs=5``.
        options: As for :func:`lightning_adabelief.comparison.plan.make_plan`.

    Raises:
        PlanError: If the comparison is not possible.
        UsageError: If the config can't be read.
    """
    tree = read_settings(["fit", "--config", str(config), *words]).tree
    return make_plan(str(config), tree, optimizers, **options)


def run_plan(plan: Plan, out: str | Path, jobs: int = 1, storage: str | None = None) -> Result:
    """Run a plan's trials, those that have no outcome yet, and write the report.

    Args:
        plan: The plan.
        out: The comparison's folder.
        jobs: The number of trials at the same time.
        storage: The URL of a database, or None.

    Raises:
        PlanError: If the folder holds another comparison.
        TrialsCrashed: If trials ended by an error.
        OSError: If the folder can't be written.
    """
    _check_jobs(jobs)
    out = Path(out)
    check_writable(out)
    _keep_plan(plan, out / PLAN)
    queue = _open_queue(plan, out, storage)
    try:
        _run_trials(queue, plan, out, jobs)
    finally:
        progress = queue.read()
        plan = find_reported_metric(plan, progress)
        write_report(out, plan, progress.stages, progress.outcomes)
    results = Results(plan, progress.stages, progress.outcomes)
    table = make_table(plan, progress.stages, progress.outcomes)
    values = results.find_values(results.metric)
    return Result(table, results.metric, values, results.comparisons, out / "report.html")


def help_others(storage: str, out: str | Path | None = None, jobs: int = 1) -> None:
    """Run trials of comparisons that others have begun, until these are done.

    Args:
        storage: The folder of a comparison, on a disk that all share, or the URL of a database.
        out: The folder for the trials' files, where ``storage`` is a URL; None for the current one.
        jobs: The number of trials at the same time.

    Raises:
        PlanError: If there is no comparison.
        TrialsCrashed: If trials ended by an error.
    """
    _check_jobs(jobs)
    if "://" not in storage:
        folder = Path(storage)
        plan = _read_kept_plan(folder / PLAN)
        _run_trials(_open_queue(plan, folder), plan, folder, jobs)
        return
    identifiers = list_comparisons(storage)
    if not identifiers:
        raise PlanError(f"{hide_password(storage)} holds no comparison. Begin one: adabelief compare ... --storage URL")
    for identifier in identifiers:
        queue = Queue(storage, identifier)
        text = queue.read_plan()
        assert text is not None
        _run_trials(queue, Plan.from_json(text), Path(out or "."), jobs)


def _open_queue(plan: Plan, out: Path, storage: str | None = None) -> Queue:
    """Open the queue of a comparison, a file in its folder if no database is given, and keep the plan there too.

    Raises:
        PlanError: If the comparison was begun with a database, and none is given.
    """
    if storage is None and (out / TRIALS).exists() and not (out / QUEUE).exists():
        raise PlanError(
            f"The comparison in {out} keeps its queue in a database. Give its URL, by --storage to go on or by "
            "--worker to help"
        )
    queue = Queue(storage or str(out / QUEUE), plan.identifier)
    queue.write_plan(plan.to_json())
    return queue


def _run_trials(queue: Queue, plan: Plan, out: Path, jobs: int) -> None:
    """Run trials until the comparison is done, together with other workers if there are any."""
    run = partial(_run_trial, plan, out, _count_threads(jobs))
    with Display(plan, jobs) as display:
        work(queue, partial(next_stage, plan), run, jobs, display.update)


def _run_trial(plan: Plan, out: Path, threads: int, trial: Trial, on_start: Callable[[Popen[bytes]], None]) -> Outcome:
    folder = out / TRIALS / trial.name
    write_config(plan, trial, folder)
    return run_trial(folder, threads, on_start)


def find_reported_metric(plan: Plan, progress: Progress) -> Plan:
    """Return the plan without its test metric, if the module's test turns out to log no metric of that name."""
    reported = [
        progress.outcomes[trial.name] for trial in progress.stages.get(REPORT, ()) if trial.name in progress.outcomes
    ]
    finished = [outcome for outcome in reported if outcome.status == "finished"]
    if plan.test_metric is None or not finished or any(plan.test_metric in outcome.metrics for outcome in finished):
        return plan
    sentence = f"The module's test logs no {plan.test_metric}, so the validation's {plan.metric} is compared."
    return replace(plan, test_metric=None, unequal=(*plan.unequal, sentence))


def _keep_plan(plan: Plan, path: Path) -> None:
    """Write the plan into the folder of a comparison, or see that the one there is the same.

    Raises:
        PlanError: If it is another.
    """
    if not path.exists():
        with replace_file(path) as part:
            part.write_text(plan.to_json(), encoding="utf-8")
        return
    differences = find_differences(_read_kept_plan(path), plan)
    if differences:
        shown = "\n  ".join(differences[:5])
        raise PlanError(
            f"{path.parent} holds another comparison. Give another --out, or the options of that one:\n  {shown}"
        )


def _read_kept_plan(path: Path) -> Plan:
    """Read the plan of a comparison's folder.

    Raises:
        PlanError: If there is none.
    """
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError(f"{path.parent} holds no comparison. Begin one: adabelief compare ... --out DIR") from error
    except (ValueError, TypeError, KeyError) as error:
        raise PlanError(f"{path} can't be read: {error}. Give another folder, or remove this one") from error


def _check_jobs(jobs: Any) -> None:
    if not (isinstance(jobs, int) and jobs >= 1):
        raise PlanError(f"The number of jobs is {jobs!r}. Give a whole number, 1 or more")


def _count_threads(jobs: int) -> int:
    """Return the threads of a trial, so that all jobs together have as many as there are processors."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // jobs)

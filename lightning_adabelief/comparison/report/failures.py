"""The section on runs that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lightning_adabelief.comparison.report.document import Details, Section, Table
from lightning_adabelief.comparison.report.numbers import show
from lightning_adabelief.comparison.report.results import Results, Run

Key = TypeVar("Key")


def make_failures(results: Results) -> Section:
    """Make the section: how many failed at which rate, and what those that crashed printed last."""
    failed = sorted(
        (run for run in results.runs if run.has_failed), key=lambda r: results.names.index(r.trial.contender)
    )
    if not failed:
        return Section("Failures", paragraphs=(f"None of the {len(results.runs)} runs failed.",))
    text = (
        f"{len(failed)} of {len(results.runs)} runs failed. Diverged: a loss or metric was not finite. Collapsed: the "
        "best checkpoint is no better than the untrained model. Both are results, and count. Crashed: an error, which "
        "does not."
    )
    tried = Counter(map(_locate, results.runs))
    rows = [_make_failure_row(place, there, tried[place]) for place, there in _group(failed, _locate).items()]
    header = ("optimizer", "stage", "learning rate", "weight decay", "failed", "seeds")
    crashed = _group([run for run in failed if run.outcome.status == "crashed"], lambda run: run.outcome.error.strip())
    details = tuple(Details(_name_crashes(runs), error or "It printed nothing.") for error, runs in crashed.items())
    return Section("Failures", paragraphs=(text,), tables=(Table(header, tuple(rows), words=2),), details=details)


def _make_failure_row(place: tuple[str, str, float], failed: Sequence[Run], tried: int) -> tuple[str, ...]:
    statuses = Counter(run.outcome.status for run in failed)
    decays = sorted({run.trial.weight_decay for run in failed})
    seeds = sorted({run.trial.seed for run in failed})
    return (
        place[0],
        place[1],
        show(place[2]),
        ", ".join(map(show, decays)),
        f"{', '.join(f'{count} {status}' for status, count in statuses.items())} of {tried}",
        ", ".join(map(str, seeds)),
    )


def _name_crashes(runs: Sequence[Run]) -> str:
    others = {0: "", 1: " and another one"}.get(len(runs) - 1, f" and {len(runs) - 1} others")
    return f"What {runs[0].trial.name}{others} printed last"


def _locate(run: Run) -> tuple[str, str, float]:
    return run.trial.contender, run.trial.stage, run.trial.lr


def _group(runs: Iterable[Run], find_key: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    """Group runs by a key, in the order of their first ones."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(find_key(run), []).append(run)
    return groups

"""The figures of all runs as CSV: a row a run, and a row a validation of a run."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_adabelief.comparison.report.results import Results, Run
from lightning_adabelief.comparison.report.settings import write_command
from lightning_adabelief.comparison.trial import Trial
from lightning_adabelief.files import replace_file

TRIAL_COLUMNS = tuple(field.name for field in dataclasses.fields(Trial))
OUTCOME_COLUMNS = ("status", "untrained", "seconds", "steps", "optimizer_share", "peak_memory")


def write_results(results: Results, folder: Path) -> None:
    """Write ``results.csv``: each run with its trial, all metrics, costs, and the command that repeats it."""
    rows = []
    for run in results.runs:
        outcome = run.outcome
        rows.append(
            {
                **_read_fields(run.trial, TRIAL_COLUMNS),
                **_read_fields(outcome, OUTCOME_COLUMNS),
                **outcome.metrics,
                **{f"belief/{name}": value for name, value in outcome.beliefs.items()},
                **{f"fingerprint/{name}": value for name, value in outcome.fingerprints.items()},
                "command": write_command(folder, run.trial),
            }
        )
    _write(folder / "results.csv", rows, (*TRIAL_COLUMNS, *OUTCOME_COLUMNS), last="command")


def write_history(results: Results, folder: Path) -> None:
    """Write ``history.csv``: each validation of each run."""
    rows = [{**_read_fields(run.trial, TRIAL_COLUMNS), **row} for run in results.runs for row in run.outcome.history]
    _write(folder / "history.csv", rows, (*TRIAL_COLUMNS, "epoch", "step", "seconds"))


def _read_fields(source: Trial | Run | Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _write(path: Path, rows: Sequence[Mapping[str, Any]], first: tuple[str, ...], last: str | None = None) -> None:
    """Write rows that need not have the same columns: ``first`` ahead, the others as they come, ``last`` at the end."""
    found = dict.fromkeys((*first, *(name for row in rows for name in row if name != last)))
    with replace_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*found, *([last] if last else [])], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

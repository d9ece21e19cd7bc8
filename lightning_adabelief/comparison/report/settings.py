"""The section on every setting: optimizers, grids, seeds, the whole config, versions, and how to repeat a trial."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from lightning_adabelief.comparison.contenders import Contender
from lightning_adabelief.comparison.report.document import Details, Section, Table
from lightning_adabelief.comparison.report.equality import describe_machine
from lightning_adabelief.comparison.report.numbers import NOTHING, show
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT
from lightning_adabelief.comparison.trial import Trial
from lightning_adabelief.comparison.trial_config import CONFIG


def make_settings(results: Results, folder: Path) -> Section:
    """Make the section.

    Args:
        results: The comparison.
        folder: The comparison's folder, as it was given.
    """
    plan = results.plan
    rates = ", ".join(map(show, plan.relative_rates))
    items = [
        f"Config: {plan.config}; varied: {', '.join('.'.join(place) for place in plan.places)}.",
        f"Learning rates: {rates} times the usual one of each optimizer.",
        f"Weight decays: {', '.join(map(show, plan.weight_decays))}, times each optimizer's factor.",
        f"Seeds: {_list_numbers(plan.tuning_seeds)} for tuning, {_list_numbers(plan.report_seeds)} for the report.",
        f"Checkpoints, learning rates and weight decays are chosen by {plan.metric} ({plan.mode}); "
        + (
            f"the test is read once a run of the report, for {plan.test_metric}."
            if plan.test_metric
            else "no test is made."
        ),
        f"Warmup, the same for all: {_describe_warmup(plan.warmup)}.",
    ]
    rows = tuple(map(_describe_contender, plan.contenders))
    table = Table(
        ("optimizer", "class", "usual learning rate", "factor of weight decay", "all other options"), rows, words=5
    )
    details = [Details("The whole config", yaml.safe_dump(plan.settings, sort_keys=False).strip())]
    machines = {text: None for run in results.runs if (text := _describe(run.outcome.machine))}
    details += [Details("Machine and versions", text) for text in machines]
    trials = [trial for stage in (REPORT, "tuning") for trial in results.stages.get(stage, ())]
    if trials:
        details.append(Details("To repeat a run by hand", write_command(folder, trials[0])))
    return Section("Every setting", items=tuple(items), tables=(table,), details=tuple(details))


def write_command(folder: Path, trial: Trial) -> str:
    """Write the command that repeats a trial."""
    return f"adabelief fit --config {shlex.quote(str(folder / 'trials' / trial.name / CONFIG))}"


def _describe_contender(contender: Contender) -> tuple[str, ...]:
    factor = contender.weight_decay_factor
    options = ", ".join(f"{name}={value}" for name, value in contender.init_args.items())
    decay = "none" if factor is None else show(factor)
    return contender.name, contender.class_path, show(contender.usual_lr), decay, options or NOTHING


def _describe(machine: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in describe_machine(machine).items())


def _describe_warmup(warmup: float) -> str:
    if not warmup:
        return "none"
    return f"{100 * warmup:g} % of the run" if 0 < warmup < 1 else f"{warmup:g} steps"


def _list_numbers(numbers: tuple[int, ...]) -> str:
    """Return seeds, those in a row as a range."""
    if len(numbers) > 2 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))

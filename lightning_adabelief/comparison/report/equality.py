"""The section on what was not equal: said by the plan, done by the stages, or found in the runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_adabelief.comparison.report.document import Section
from lightning_adabelief.comparison.report.numbers import show
from lightning_adabelief.comparison.report.results import Results, Run
from lightning_adabelief.comparison.stages import REPORT

FINGERPRINTS = {"weights": "initial weights", "batch": "first batch"}


def make_equality(results: Results) -> Section:
    """Make the section."""
    unequal = [
        *results.plan.unequal,
        *_list_widened(results),
        *_list_edges(results),
        *_list_lengths(results),
        *_list_fingerprints(results),
        *_list_machines(results),
    ]
    equal = (
        "All optimizers had the same number of learning rates, relative to the usual one of each, the same weight "
        "decays, schedule, length, batch size and data"
        + (
            ", and for a seed the same initial weights and first batch, as digests of both show."
            if _has_all_equal(results)
            else "."
        )
    )
    if not unequal:
        return Section("What was not equal", paragraphs=(f"Nothing, as far as is known. {equal}",))
    return Section("What was not equal", paragraphs=(equal, "But:"), items=tuple(unequal))


def describe_machine(machine: Mapping[str, Any]) -> dict[str, str]:
    """Return a machine's description as pairs of what and which; packages stand with their versions."""
    flat: dict[str, str] = {}
    for key, value in machine.items():
        flat |= describe_machine(value) if isinstance(value, Mapping) else {str(key): str(value)}
    return flat


def _list_widened(results: Results) -> list[str]:
    """Say whose learning rates were widened, and by which."""
    sentences = []
    for name in results.names:
        added = {
            trial.lr
            for stage, trials in results.stages.items()
            if stage not in ("tuning", REPORT)
            for trial in trials
            if trial.contender == name
        }
        if added:
            rates = ", ".join(show(rate) for rate in sorted(added))
            sentences.append(
                f"{name}'s best learning rate was at the edge of those tried, so it was given more: {rates}."
            )
    return sentences


def _list_edges(results: Results) -> list[str]:
    """Say whose chosen learning rate or weight decay is still the smallest or the largest one tried."""
    sentences = []
    for name in results.names:
        chosen = results.find_chosen(name)
        tried = [t for trials in results.stages.values() for t in trials if t.contender == name]
        if chosen is None:
            continue
        rates = {trial.lr for trial in tried}
        if len(rates) > 1 and chosen.lr in (min(rates), max(rates)):
            word = "largest" if chosen.lr == max(rates) else "smallest"
            sentences.append(
                f"{name}'s chosen learning rate, {show(chosen.lr)}, is the {word} one tried: one further out might "
                "have been better."
            )
        decays = {trial.weight_decay for trial in tried}
        if len(decays) > 1 and chosen.weight_decay in (min(decays) or None, max(decays)):  # below 0 there is none
            word = "largest" if chosen.weight_decay == max(decays) else "smallest"
            sentences.append(f"{name}'s chosen weight decay, {show(chosen.weight_decay)}, is the {word} one tried.")
    return sentences


def _list_lengths(results: Results) -> list[str]:
    """Say how long the report's runs were where not all had the same number of steps."""
    lengths = {
        name: sorted(run.outcome.steps for run in results.list_runs(name, in_report=True) if not run.has_failed)
        for name in results.names
    }
    if len({steps for of_one in lengths.values() for steps in of_one}) < 2:
        return []
    ranges = [f"{name} {found[0]:,} to {found[-1]:,}" for name, found in lengths.items() if found]
    return [
        f"Not all runs of the report had the same number of steps, as where they are stopped early: {_join(ranges)}."
    ]


def _list_fingerprints(results: Results) -> list[str]:
    """Say at which seeds the runs did not begin alike."""
    sentences = []
    for key, words in FINGERPRINTS.items():
        seeds = [seed for seed, found in _collect_fingerprints(results, key).items() if len(set(found)) > 1]
        if seeds:
            sentences.append(
                f"The {words} differed between runs of the same seed ({_join(seeds)}): pairing by seed gains nothing "
                "then. Is everything random seeded by seed_everything?"
            )
    return sentences


def _has_all_equal(results: Results) -> bool:
    """True if several runs of a seed have fingerprints, and all of those are equal."""
    collected = [found for key in FINGERPRINTS for found in _collect_fingerprints(results, key).values()]
    return any(len(found) > 1 for found in collected) and all(len(set(found)) < 2 for found in collected)


def _collect_fingerprints(results: Results, key: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for run in results.runs:
        if key in run.outcome.fingerprints:
            found.setdefault(run.trial.seed, []).append(run.outcome.fingerprints[key])
    return found


def _list_machines(results: Results) -> list[str]:
    """Say in what the machines of the runs differ."""
    runs = [(run, describe_machine(run.outcome.machine)) for run in results.runs if run.outcome.machine]
    sentences = []
    for key in dict.fromkeys(key for _, machine in runs for key in machine):
        values: dict[str, list[Run]] = {}
        for run, machine in runs:
            values.setdefault(machine.get(key, "none"), []).append(run)
        if len(values) > 1:
            which = "; ".join(f"{value} ({_name_runs(found, results)})" for value, found in values.items())
            sentences.append(f"Not all runs had the same {key}: {which}.")
    return sentences


def _name_runs(runs: list[Run], results: Results) -> str:
    names = [name for name in results.names if any(run.trial.contender == name for run in runs)]
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} of {_join(names)}"


def _join(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))

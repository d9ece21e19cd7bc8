"""``adabelief compare NAME_OR_PATH --out DIR``: the same training under several optimizers, compared honestly."""

from __future__ import annotations

import argparse
import re
from typing import Any

EPILOG = """\
First each optimizer's learning rate is chosen on tuning seeds, from the same grid relative to its usual rate; then all
are run on fresh seeds and their differences are judged, paired by seed. Each run is one plain 'adabelief fit' by a
config in DIR/trials. The same command goes on where it was stopped. Written into DIR: report.html, report.md,
results.csv and history.csv.

  adabelief compare digits-cnn --optimizers adabelief,adamw --out digits
  adabelief compare mine.yaml --optimizers adamw,adabelief,sgd --set trainer.max_epochs=5 --list
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="train with several optimizers, each at its best learning rate, and tell whether they differ",
        description="Train with several optimizers, each at its best learning rate, and tell whether they differ.",
        epilog=EPILOG,
    )
    parser.add_argument("config", nargs="?", metavar="NAME_OR_PATH", help="a recipe's name, or a Lightning CLI config")
    parser.add_argument(
        "--optimizers",
        default="adabelief,adamw",
        metavar="A,B,...",
        help="adabelief, adabelief-matched, adam, adamw, radam, nadam, rmsprop, sgd, sgd-nesterov, class paths, or "
        "'{name: ..., class_path: ..., init_args: {...}}'; the others are compared with the first "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the comparison: its trials, and then its report")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds of the report (default: %(default)s)")
    parser.add_argument(
        "--tuning-seeds", type=int, default=1, help="number of other seeds, to choose rates on (default: %(default)s)"
    )
    parser.add_argument(
        "--lr",
        default="auto",
        metavar="GRID",
        help="learning rates as multiples of each optimizer's usual one, such as 0.3,1,3 (auto: 0.1,0.32,1,3.2,10). "
        "The usual one is the config's; for another optimizer what corresponds to it: 100 times Adam's for SGD",
    )
    parser.add_argument(
        "--weight-decay", default="auto", metavar="GRID", help="weight decays to choose from (auto: the config's)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of 'adabelief fit' for all runs, such as trainer.max_epochs=5",
    )
    parser.add_argument("--metric", help="validation metric to choose by (default: the config's ModelCheckpoint's)")
    parser.add_argument("--mode", choices=("min", "max"), help="which of its values are better")
    parser.add_argument(
        "--vary", metavar="KEY", help="vary one optimizer of several, generator_optimizer (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the plan and what it costs, and run nothing")
    parser.add_argument(
        "--storage", metavar="URL", help="database of the queue, postgresql+psycopg://... (default: a file in DIR)"
    )
    parser.add_argument(
        "--worker",
        metavar="DIR_OR_URL",
        help="help with a comparison that another command has begun",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison, or help with one.

    Raises:
        UsageError: If the comparison is not possible.
        OSError: If the folder can't be written.
    """
    from lightning_adabelief.cli.signals import handle_signals

    with handle_signals():
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    from lightning_adabelief.cli.signals import StoppedBySignal
    from lightning_adabelief.config_file import UsageError

    if arguments.worker is not None:
        _help(arguments.worker, arguments.out, arguments.jobs)
        return
    if arguments.config is None:
        raise UsageError("There is no config to compare on. Give a recipe's name or a file, such as digits-cnn")
    if arguments.out is None and not arguments.list:
        raise UsageError("There is no folder for the comparison. Give one: --out DIR")
    words = _read_overrides(arguments.set)
    settings = _check_config(arguments.config, words)

    from rich.console import Console

    from lightning_adabelief.comparison.compare import run_plan
    from lightning_adabelief.comparison.errors import PlanError
    from lightning_adabelief.comparison.plan import find_unfinished_schedule, make_plan

    try:
        plan = make_plan(
            arguments.config,
            settings,
            _read_list("--optimizers", arguments.optimizers),
            seeds=arguments.seeds,
            tuning_seeds=arguments.tuning_seeds,
            relative_rates=_read_grid("--lr", arguments.lr),
            weight_decays=_read_grid("--weight-decay", arguments.weight_decay),
            metric=arguments.metric,
            mode=arguments.mode,
            vary=arguments.vary,
        )
        warning = find_unfinished_schedule(plan.settings)
        if warning:
            Console(stderr=True).print(f"[yellow]warning:[/] {warning}", soft_wrap=True, highlight=False)
        if arguments.list:
            from lightning_adabelief.comparison.plan_table import make_plan_table

            Console().print(make_plan_table(plan, None if words else _find_seconds(arguments.config)))
            return
        result = run_plan(plan, arguments.out, arguments.jobs, arguments.storage)
    except StoppedBySignal as stop:
        stop.message += " Runs that have ended are kept: the same command goes on from here"
        raise
    except PlanError as error:
        raise UsageError(str(error)) from error
    console = Console()
    console.print(result.table)
    console.print(f"[dim]report[/] {result.report}", soft_wrap=True, highlight=False)


def _check_config(config: str, words: list[str]) -> dict[str, Any]:
    """Check the config in a moment, import the user's modules, which decide which Lightning is used, and return it."""
    from lightning_adabelief.cli.check import check
    from lightning_adabelief.cli.users_modules import import_users_modules
    from lightning_adabelief.settings import read_settings

    settings = read_settings(["fit", "--config", config, *words])
    check(settings)
    import_users_modules(settings.tree)
    return settings.tree


def _read_overrides(pairs: list[str]) -> list[str]:
    """Return ``key=value`` as the options of 'adabelief fit'; a key may have its dashes already."""
    from lightning_adabelief.config_file import UsageError

    for pair in pairs:
        key, equals, _ = pair.lstrip("-").partition("=")
        if not (key and equals):
            raise UsageError(f"--set {pair!r} is not KEY=VALUE, such as trainer.max_epochs=5")
    return [f"--{pair.lstrip('-')}" for pair in pairs]


def _read_list(option: str, text: str) -> list[Any]:
    """Read values between commas; one may be a mapping in braces, with commas of its own."""
    from lightning_adabelief.config_file import UsageError, convert_number, parse_value

    values = parse_value(f"[{text}]")
    if not isinstance(values, list):
        raise UsageError(f"{option} {text!r} is not a list of values with commas between them")
    return [convert_number(value) for value in values]


def _read_grid(option: str, text: str) -> list[Any] | None:
    return None if text == "auto" else _read_list(option, text)


def _find_seconds(config: str) -> float | None:
    """Return the measured seconds of a recipe's run as it comes; None of another config."""
    from lightning_adabelief.recipes.catalog import list_names, recipes

    if config not in list_names():
        return None
    measured = re.search(r"in (\d+) s", recipes()[config].facts["measured"])
    return float(measured[1]) if measured else None


def _help(storage: str, out: str | None, jobs: int) -> None:
    """Run trials of comparisons that others have begun."""
    from lightning_adabelief.comparison.compare import help_others
    from lightning_adabelief.comparison.errors import PlanError
    from lightning_adabelief.config_file import UsageError

    try:
        help_others(storage, out, jobs)
    except PlanError as error:
        raise UsageError(str(error)) from error

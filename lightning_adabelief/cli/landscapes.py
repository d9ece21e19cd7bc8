"""``adabelief landscapes --out DIR``: send optimizers down functions of two weights, and draw their paths."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "landscapes",
        help="draw the paths of SGD, Adam and AdaBelief down functions of two weights",
        description="Draw the paths of optimizers down functions of two weights: the AdaBelief paper's five, or yours.",
        epilog="Written into DIR: paths.png, paths.gif, losses.png, regions.png, steps.md and steps.csv.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the pictures and tables")
    parser.add_argument(
        "--functions",
        nargs="+",
        metavar="NAME",
        help="l1, inseparable-l1, inseparable-l2, beale, rosenbrock (default: all five), or the import path of a "
        "function of your own, from two tensors x and y to a tensor of their shape, such as my_module.valley",
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        help="sgd (with momentum 0.9), adam, adabelief (without rectification; default: all three), a class path, or "
        "one with options: '{class_path: torch.optim.SGD, init_args: {momentum: 0.9, nesterov: true}}'",
    )
    parser.add_argument(
        "--start", nargs=2, type=float, metavar=("X", "Y"), help="in place of each function's own start"
    )
    parser.add_argument("--steps", type=int, help="number of steps (default: 500)")
    parser.add_argument(
        "--tolerance", type=float, help="loss above the minimum's that is to be reached (default: 0.05)"
    )
    parser.add_argument(
        "--lr",
        type=float,
        help="learning rate of all optimizers (default: each one's is searched, all in the same way)",
    )
    parser.add_argument(
        "--betas",
        nargs=2,
        type=float,
        metavar=("BETA1", "BETA2"),
        help="of the optimizers that have betas (default: their own); SGD's momentum is the first",
    )
    parser.add_argument("--seed", type=int, help="of the starts nearby and of the noise in regions.png (default: 0)")
    parser.add_argument("--no-animation", dest="animation", action="store_false", help="leave paths.gif out")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison, and print its table.

    Raises:
        UsageError: If a function, an optimizer or another option is not possible.
        OSError: If the folder can't be written.
    """
    from lightning_adabelief.cli.signals import handle_signals

    with handle_signals():
        _compare(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from lightning_adabelief.config_file import UsageError
    from lightning_adabelief.landscapes.experiment import run
    from lightning_adabelief.landscapes.importing import InvalidOptionError

    names = ("functions", "steps", "tolerance", "start", "lr", "betas", "seed", "animation")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    try:
        if arguments.optimizers is not None:
            options["optimizers"] = [_parse_optimizer(text) for text in arguments.optimizers]
        comparison = run(arguments.out, progress=True, **options)
    except InvalidOptionError as error:
        raise UsageError(str(error)) from error
    console = Console()
    console.print(comparison.table)
    console.print(f"Wrote {', '.join(file.name for file in comparison.files)} into {arguments.out}", soft_wrap=True)


def _parse_optimizer(text: str) -> str | Callable[..., Any]:
    """Return a name or class path as it is; a class path with options, in a config's form, as what makes it."""
    from lightning_adabelief.config_file import UsageError, convert_number, parse_value
    from lightning_adabelief.landscapes.optimizers import find_maker

    if not text.startswith("{"):
        return text
    spec = parse_value(text)
    if not (isinstance(spec, dict) and set(spec) <= {"class_path", "init_args"} and "class_path" in spec):
        raise UsageError(f"The optimizer {text!r} is not of the form {{class_path: ..., init_args: {{...}}}}")
    options = spec.get("init_args") or {}
    if not isinstance(options, dict):
        raise UsageError(f"The init_args of {spec['class_path']} are {options!r}. Give names with values")
    return partial(find_maker(spec["class_path"]), **{name: convert_number(value) for name, value in options.items()})

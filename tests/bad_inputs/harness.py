"""How a row of the table is run: a command line in this process, an expression of Python as it stands."""

import contextlib
import io
import logging
import math
import shlex
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from lightning_adabelief import AdaBelief, BeliefMonitor, configure_adabelief
from lightning_adabelief.cli.main import main

QUICK = ["--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=1", "--trainer.max_epochs=1"]


class Row(NamedTuple):
    """A bad input.

    Attributes:
        input: A command line that begins with ``adabelief``, or an expression of Python.
        expected: Each is in the message.
        status: The exit status; 1 for the error of an expression.
    """

    input: str
    expected: tuple[str, ...]
    status: int


class Outcome(NamedTuple):
    """What came of a row.

    Attributes:
        status: The exit status; 1 for an error that an expression raised, 0 if it raised none.
        message: What was printed, or the error.
    """

    status: int
    message: str


def run_row(row: Row) -> Outcome:
    """Run a row in the current folder, which has the files of :func:`~tests.bad_inputs.files.write_files`."""
    with _silence() as stderr:
        if not row.input.startswith("adabelief"):
            return _evaluate(row.input)
        words = shlex.split(row.input)[1:]
        if words and words[0] in ("fit", "test", "validate", "predict") and "--config" in words:
            words += [word for word in QUICK if word.split("=")[0] not in row.input]
        try:
            status = main(words)
        except SystemExit as stop:  # argparse's
            status = int(stop.code or 0)
    return Outcome(status, stderr.getvalue().strip())


def _evaluate(expression: str) -> Outcome:
    try:
        eval(expression, dict(NAMES))
    except (ValueError, TypeError) as error:
        return Outcome(1, f"{type(error).__name__}: {error}")
    return Outcome(0, "")


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Keep what a run prints; Lightning's advice on how it runs is none of an error's message."""
    stderr = io.StringIO()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
            warnings.simplefilter("ignore")
            yield stderr
    finally:
        logging.disable(before)


def params() -> list[nn.Parameter]:
    """Return what an optimizer takes."""
    return [nn.Parameter(torch.ones(2))]


def network() -> nn.Module:
    """Return a small network."""
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def step(**options: object) -> AdaBelief:
    """Return an AdaBelief that has stepped."""
    weights = params()
    optimizer = AdaBelief(weights, **options)
    weights[0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


def load(**changes: object) -> None:
    """Load a state in which some entries of the parameter's are others; ``...`` leaves one out."""
    optimizer = step()
    state = optimizer.state_dict()
    state["state"][0].update(changes)
    state["state"][0] = {name: value for name, value in state["state"][0].items() if value is not ...}
    optimizer.load_state_dict(state)


def load_group(**changes: object) -> None:
    """Load a state in which some options of the param group are others."""
    optimizer = step()
    state = optimizer.state_dict()
    state["param_groups"][0].update(changes)
    optimizer.load_state_dict(state)


NAMES = {
    "AdaBelief": AdaBelief,
    "BeliefMonitor": BeliefMonitor,
    "configure_adabelief": configure_adabelief,
    "load": load,
    "load_group": load_group,
    "math": math,
    "network": network,
    "params": params,
    "step": step,
    "torch": torch,
}
"""What expressions may name."""

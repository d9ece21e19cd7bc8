"""Trainings of recipes that record gradients, or whose averages are stored in codes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from common import load_recipe
from state_codes import Code
from torch import Tensor

from lightning_adabelief.lightning_tree import Callback

SMALLEST = 4096
"""The size from which a tensor is coded; smaller ones stay in float32."""

CHUNKS, CHUNK = 16, 256
"""The number and the size of the pieces of consecutive weights, spread over a tensor, that are recorded of it."""


class Recording(NamedTuple):
    """The gradients that an optimizer was given.

    Attributes:
        gradients: Of a sample of weights, a row each step.
        betas: The optimizer's.
        eps: The optimizer's.
    """

    gradients: Tensor
    betas: tuple[float, float]
    eps: float


class Recorder(Callback):
    """Records the gradients, as they were clipped, of each of a Trainer's optimizers."""

    def __init__(self) -> None:
        self.rows: list[list[Tensor]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record."""
        self.optimizers = trainer.optimizers
        for optimizer in trainer.optimizers:
            self.rows.append([])
            optimizer.register_step_post_hook(self._make_hook(self.rows[-1]))

    def _make_hook(self, rows: list[Tensor]) -> Callable[..., None]:
        def record(optimizer: Any, *_: Any) -> None:
            params = [param for group in optimizer.param_groups for param in group["params"]]
            grads = [param.grad for param in params if param.numel() >= SMALLEST]
            rows.append(torch.cat([_draw_chunks(grad) for grad in grads]))

        return record

    def recordings(self) -> list[Recording]:
        """Return a recording an optimizer."""
        groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        return [
            Recording(torch.stack(rows), group["betas"], group["eps"])
            for rows, group in zip(self.rows, groups, strict=True)
        ]


class CodedState(Callback):
    """Stores the averages of a Trainer's optimizers in codes after each step, and keeps the losses of each epoch."""

    def __init__(self, code_of_m: Code, code_of_s: Code) -> None:
        self.codes = {"exp_avg": code_of_m, "exp_avg_var": code_of_s}
        self.generator = torch.Generator().manual_seed(0)
        self.losses: list[float] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to code."""
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(self._code_state)

    def _code_state(self, optimizer: Any, *_: Any) -> None:
        for state in optimizer.state.values():
            for name, code in self.codes.items():
                if state[name].numel() >= SMALLEST:
                    flat = code.round_trip(state[name].flatten(), self.generator)
                    state[name].copy_(flat.view_as(state[name]))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the losses of the epoch before."""
        self.losses = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Keep the batch's loss."""
        self.losses.append(float(outputs["loss"]))


def train(recipe: str, seed: int, callback: Callback, *settings: str) -> None:
    """Train a recipe without validation, loggers and its own callbacks.

    Args:
        recipe: Its name.
        seed: Of its random numbers.
        callback: Added to the Trainer.
        *settings: Of the Trainer, as on the command line: ``max_steps=10``.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        cli = load_recipe(recipe, f"--seed_everything={seed}", *(f"--trainer.{setting}" for setting in settings))
        cli.trainer.callbacks.append(callback)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def record(recipe: str, steps: int) -> list[Recording]:
    """Record a recipe's gradients from its first step on."""
    recorder = Recorder()
    train(recipe, 0, recorder, f"max_steps={steps}")
    return recorder.recordings()


def _draw_chunks(tensor: Tensor) -> Tensor:
    """Return pieces of consecutive numbers, spread over a tensor."""
    pieces = len(tensor.flatten()) // CHUNK
    return tensor.flatten()[: pieces * CHUNK].view(pieces, CHUNK)[:: max(1, pieces // CHUNKS)][:CHUNKS].flatten()

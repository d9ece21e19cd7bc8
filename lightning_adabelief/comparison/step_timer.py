"""The share that the optimizers' steps have in the time of training."""

from __future__ import annotations

from time import perf_counter

import torch

INTERVAL = 19
"""On a GPU, batches from one that is measured to the next, because the GPU is waited for; a prime number, so that
accumulated batches do not always hide the step."""


class StepTimer:
    """Add up the time in optimizers' steps, and in the batches that they are part of.

    The first batch, in which optimizers allocate their state and kernels are compiled, is not measured.

    Args:
        device: The device that is trained on.
    """

    def __init__(self, device: torch.device) -> None:
        self._waits = device.type != "cpu"
        self._batches = 0
        self._is_measuring = False
        self._batch_began = self._step_began = 0.0
        self._of_this_batch = self._in_steps = self._in_batches = 0.0

    @property
    def share(self) -> float:
        """The time in steps as a fraction of the time in batches; 0 where no batch was measured."""
        return self._in_steps / self._in_batches if self._in_batches else 0.0

    def begin_batch(self) -> None:
        """Begin a batch, before its forward pass."""
        self._is_measuring = self._batches > 0 and (not self._waits or self._batches % INTERVAL == 1)
        self._batches += 1
        self._of_this_batch = 0.0
        self._batch_began = self._read_clock()

    def begin_step(self) -> None:
        """Begin a step; where it is called again, that is when the step begins."""
        self._step_began = self._read_clock()

    def end_step(self) -> None:
        """End a step."""
        self._of_this_batch += self._read_clock() - self._step_began

    def leave_out(self, seconds: float) -> None:
        """Leave out a time of this batch that is not the training's."""
        self._batch_began += seconds

    def end_batch(self) -> None:
        """End a batch, after its last step."""
        now = self._read_clock()
        if self._is_measuring:
            self._in_steps += self._of_this_batch
            self._in_batches += now - self._batch_began

    def _read_clock(self) -> float:
        if not self._is_measuring:
            return 0.0
        if self._waits:
            torch.accelerator.synchronize()
        return perf_counter()

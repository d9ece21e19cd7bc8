"""A trained network with what belongs before and after it, to be exported from PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Exportable:
    """A trained network with what belongs before and after it, to be exported from PyTorch.

    Attributes:
        program: The module to export, in evaluation mode.
        inputs: Names of the program's inputs, and a batch of each, all of the same size.
        output: Name of its output, a tensor.
        metadata: Facts about the program that are kept with it.
        reference: A function of the same inputs to the output as the recipe's module itself computes it.
    """

    program: nn.Module
    inputs: dict[str, Tensor]
    output: str
    metadata: dict[str, str]
    reference: Callable[..., Tensor]

"""The functions of two weights that the optimizers go down, and those of a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_adabelief.landscapes.importing import InvalidOptionError, import_object
from lightning_adabelief.suggest import suggest

Point = tuple[float, float]

ELEMENTWISE = (
    "It is given two float64 tensors x and y of one shape, and returns a tensor of that shape, element by element"
)
"""The contract of a function of a user's own."""


@dataclass(frozen=True)
class Landscape:
    """A function of two weights, and the point from which it is descended.

    Attributes:
        name: Its name in commands, tables and plots.
        formula: Text for a plot, in matplotlib's mathematics.
        function: From two float64 tensors of one shape to their losses, a tensor of that shape.
        start: The point where every path begins.
        minimum: The point of the least loss; None if it isn't known.
    """

    name: str
    formula: str
    function: Callable[[Tensor, Tensor], Tensor]
    start: Point
    minimum: Point | None = None

    def losses(self, points: Tensor) -> Tensor:
        """Return the losses of points, of shape (..., 2), as a tensor of shape (...)."""
        x, y = points.unbind(-1)
        return self.function(x, y)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return x.abs() + y.abs()


def _inseparable_l1(x: Tensor, y: Tensor) -> Tensor:
    return (x + y).abs() + (x - y).abs() / 10


def _inseparable_l2(x: Tensor, y: Tensor) -> Tensor:
    return (x + y) ** 2 + (x - y) ** 2 / 10


def _beale(x: Tensor, y: Tensor) -> Tensor:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _rosenbrock(x: Tensor, y: Tensor) -> Tensor:
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


LANDSCAPES = {
    landscape.name: landscape
    for landscape in (
        Landscape("l1", "$|x| + |y|$", _l1, (-2.5, 0.0), (0.0, 0.0)),
        Landscape("inseparable-l1", "$|x+y| + |x-y|/10$", _inseparable_l1, (2.5, 0.0), (0.0, 0.0)),
        Landscape("inseparable-l2", "$(x+y)^2 + (x-y)^2/10$", _inseparable_l2, (2.5, 0.0), (0.0, 0.0)),
        Landscape("beale", "Beale's function", _beale, (-2.5, -2.5), (3.0, 0.5)),
        Landscape("rosenbrock", "Rosenbrock's function", _rosenbrock, (-4.0, -4.0), (1.0, 1.0)),
    )
}
"""Five functions of the AdaBelief paper's figure 3. The paper doesn't print their starts, which others read off it."""


def find_landscape(name: str, start: Point | None = None) -> Landscape:
    """Find one of :data:`LANDSCAPES`, or make one of a function of the user's own.

    Args:
        name: Its name, or the import path of a function of two tensors, such as ``"my_module.valley"``.
        start: Where to begin; by default the start of the paper's figure.

    Raises:
        InvalidOptionError: If there is no such function, if it isn't one of two weights, if one of the user's own has
            no start, or if the loss or its gradient at the start isn't a finite number.
    """
    if start is not None and not (len(start) == 2 and all(map(math.isfinite, start))):
        raise InvalidOptionError(f"The start is {tuple(start)}. Give two finite numbers, x and y")
    start = None if start is None else (start[0], start[1])  # a command line gives a list
    if name in LANDSCAPES:
        landscape = LANDSCAPES[name] if start is None else replace(LANDSCAPES[name], start=start)
    elif "." not in name:
        raise InvalidOptionError(
            f"Unknown function: {name!r}. {suggest(name, LANDSCAPES)} "
            "A function of your own is given by its import path, such as my_module.valley"
        )
    else:
        function = import_object(name, "function")
        if not callable(function):
            raise InvalidOptionError(f"{name} is of type {type(function).__name__}, not a function. {ELEMENTWISE}")
        if start is None:
            raise InvalidOptionError(f"{name} has no start. Give one, x and y, with --start, or start= in Python")
        landscape = Landscape(name, name.rpartition(".")[2].replace("_", " "), function, start)
    _check_function(landscape)
    return landscape


def _check_function(landscape: Landscape) -> None:
    """Raise an error unless a landscape has two weights, and a loss and gradient at its start."""
    start = torch.tensor(landscape.start, dtype=torch.float64)
    near = torch.stack([start, start + 1e-3, start - 1e-3]).requires_grad_()
    losses = _evaluate(landscape, near)
    alone = torch.stack([_evaluate(landscape, point[None])[0] for point in near])
    if not torch.allclose(losses, alone, equal_nan=True):
        raise InvalidOptionError(
            f"{landscape.name} gives {losses.tolist()} for three points together and {alone.tolist()} for each alone. "
            f"{ELEMENTWISE}, the same each time"
        )
    if not torch.isfinite(losses[0]):
        raise InvalidOptionError(
            f"{landscape.name} is {losses[0].item()} at its start {landscape.start}. Give another start"
        )
    if not losses.requires_grad:
        raise InvalidOptionError(
            f"{landscape.name}(x, y) has no gradient. Compute the result from x and y with torch's operations"
        )
    (gradient,) = torch.autograd.grad(losses[0], near)
    if not torch.isfinite(gradient).all():
        raise InvalidOptionError(
            f"The gradient of {landscape.name} is {tuple(gradient[0].tolist())} at its start {landscape.start}. "
            "Give another start"
        )


def _evaluate(landscape: Landscape, points: Tensor) -> Tensor:
    """Return the losses of points, of shape (n, 2), or raise an error if the function can't take or return them."""
    try:
        losses = landscape.losses(points)
    except Exception as error:
        raise InvalidOptionError(
            f"{landscape.name}(x, y) raised {type(error).__name__}: {error}. {ELEMENTWISE}"
        ) from error
    if not isinstance(losses, Tensor):
        raise InvalidOptionError(f"{landscape.name}(x, y) returned a {type(losses).__name__}. {ELEMENTWISE}")
    if losses.shape != points.shape[:-1]:
        raise InvalidOptionError(
            f"{landscape.name}(x, y) returned the shape {tuple(losses.shape)} for x and y of the shape "
            f"{tuple(points.shape[:-1])}. {ELEMENTWISE}"
        )
    return losses

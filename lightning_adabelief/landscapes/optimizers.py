"""The optimizers that are compared: by short name, class path, or anything that makes one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from lightning_adabelief.landscapes.importing import InvalidOptionError, import_object
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.suggest import suggest

OptimizerMaker = Callable[..., Optimizer]

NAMED: dict[str, OptimizerMaker] = {
    "sgd": partial(SGD, momentum=0.9),
    "adam": Adam,
    "adabelief": partial(AdaBelief, rectify=False),
}
"""The optimizers with a name of their own. AdaBelief is the paper's: rectification came after it."""

LR_WITHOUT_DEFAULT = 1e-3
"""The middle of the grid of learning rates for an optimizer that has no default."""


@dataclass(frozen=True)
class Contender:
    """An optimizer that takes part.

    Attributes:
        name: Its class, and the options that set it apart.
        make: From a list of parameters, and ``lr``, to the optimizer.
        default_lr: The learning rate that its class has by default.
        lr: The learning rate that was given, which is not searched; None for one that is.
        is_elementwise: True if a step on one element does not depend on the others.
    """

    name: str
    make: OptimizerMaker
    default_lr: float
    lr: float | None
    is_elementwise: bool = False


def make_contender(
    optimizer: str | OptimizerMaker, betas: tuple[float, float] | None = None, lr: float | None = None
) -> Contender:
    """Make a contender, and let it take a step on two weights to see that it can.

    Args:
        optimizer: ``"sgd"``, ``"adam"``, ``"adabelief"``, a class path, an optimizer class, or a
            ``functools.partial`` of one with options; among these, ``lr`` is not searched.
        betas: For an optimizer that has betas and isn't given its own; SGD's momentum is the first.
        lr: The learning rate of an optimizer that isn't given its own; None to search one.

    Raises:
        InvalidOptionError: If there is no such optimizer, if it refuses its options, or if it can't take a step
            on two weights.
    """
    make = find_maker(optimizer) if isinstance(optimizer, str) else optimizer
    cls, options = _read_maker(make)
    parameters = inspect.signature(cls).parameters
    name = _make_name(cls, options, is_named=optimizer in NAMED if isinstance(optimizer, str) else False)
    added: dict[str, Any] = {}
    if betas is not None and "betas" in parameters and "betas" not in options:
        added["betas"] = tuple(betas)
    if betas is not None and optimizer == "sgd":
        added["momentum"] = betas[0]
    default = parameters["lr"].default if "lr" in parameters else None
    default_lr = float(default) if isinstance(default, int | float) and default > 0 else LR_WITHOUT_DEFAULT
    given_lr = options.get("lr", lr)
    if given_lr is not None and not (isinstance(given_lr, int | float) and 0 < given_lr < math.inf):
        raise InvalidOptionError(f"The learning rate of {name} is {given_lr!r}. Give a number above 0")
    contender = Contender(name, partial(make, **added), default_lr, given_lr)
    return replace(contender, is_elementwise=_try_steps(contender))


def make_contenders(
    optimizers: Sequence[str | OptimizerMaker], betas: tuple[float, float] | None = None, lr: float | None = None
) -> list[Contender]:
    """Make each contender once.

    Raises:
        InvalidOptionError: As :func:`make_contender`, and if there is none, or one twice.
    """
    contenders = [make_contender(optimizer, betas, lr) for optimizer in optimizers]
    names = [contender.name for contender in contenders]
    for i, optimizer in enumerate(optimizers):
        if names.count(names[i]) > 1 and isinstance(optimizer, str):  # classes of one name, of different packages
            contenders[i] = replace(contenders[i], name=optimizer)
    names = [contender.name for contender in contenders]
    for name in names:
        if names.count(name) > 1:
            raise InvalidOptionError(f"{name} is given {names.count(name)} times. Give each optimizer once")
    if not names:
        raise InvalidOptionError(f"There is no optimizer. Give some of {', '.join(NAMED)}, or class paths")
    return contenders


def find_maker(name: str) -> OptimizerMaker:
    """Find an optimizer by its name in :data:`NAMED` or its class path.

    Raises:
        InvalidOptionError: If there is none.
    """
    if not isinstance(name, str):
        raise InvalidOptionError(f"The optimizer is {name!r}. Give a name or class path")
    if name in NAMED:
        return NAMED[name]
    if "." not in name:
        raise InvalidOptionError(
            f"Unknown optimizer: {name!r}. {suggest(name, NAMED)} "
            "Any other is given by its class path, such as torch.optim.RMSprop"
        )
    found = import_object(name, "optimizer")
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise InvalidOptionError(f"{name} is not an optimizer. Give a class derived from torch.optim.Optimizer")
    return found


def _read_maker(make: OptimizerMaker) -> tuple[Any, dict[str, Any]]:
    """Return the class, or function, that makes an optimizer, and the options that it is given."""
    if isinstance(make, partial):
        return make.func, dict(make.keywords)
    if not callable(make):
        raise InvalidOptionError(
            f"{make!r} is not an optimizer. Give a name, a class path, a class, or a partial of one"
        )
    return make, {}


def _make_name(cls: Any, options: dict[str, Any], is_named: bool) -> str:
    """Return the class's name, with the options that a user gave; a learning rate has its own place in a table."""
    given = {} if is_named else {name: value for name, value in options.items() if name != "lr"}
    text = ", ".join(f"{name}={value}" for name, value in given.items())
    name = getattr(cls, "__name__", type(cls).__name__)
    return f"{name} ({text})" if text else name


def _try_steps(contender: Contender) -> bool:
    """Take a few steps on points together and on each alone, and return True if they end in the same places.

    Raises:
        InvalidOptionError: If the optimizer can't be made, or can't step without a closure on two numbers.
    """
    gradients = torch.randn(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        contender.make(
            [torch.zeros(2, dtype=torch.float64, requires_grad=True)], lr=contender.lr or contender.default_lr
        )
    except Exception as error:
        raise InvalidOptionError(f"{contender.name} can't be made with these options: {error}") from error
    try:
        alone = [_step_along(contender, gradients[:, point]) for point in range(3)]
    except Exception as error:
        raise InvalidOptionError(
            f"{contender.name} can't take a step on a parameter of two numbers without a closure: {error}"
        ) from error
    try:
        together = _step_along(contender, gradients)
    except Exception:
        return False
    return torch.allclose(together, torch.stack(alone))


def _step_along(contender: Contender, gradients: Tensor) -> Tensor:
    """Take a step from 0 with each of some gradients, of shape (steps, ...), and return where they end."""
    param = torch.zeros_like(gradients[0], requires_grad=True)
    optimizer = contender.make([param], lr=contender.lr or contender.default_lr)
    for gradient in gradients:
        param.grad = gradient.clone()
        optimizer.step()
    return param.detach()

"""Who tells AdaBelief the length of the run, where ``warmup`` is a share of it and ``total_steps`` is not given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lightning_adabelief.optim.scaling import is_share

_count: ContextVar[Callable[[float], int] | None] = ContextVar("run_length", default=None)


@contextmanager
def run_length(count: Callable[[float], int]) -> Iterator[None]:
    """Let AdaBeliefs that are made in this context know the length of the run.

    So a function that makes an optimizer from parameters alone, such as a config's, can say
    ``warmup=0.05``.

    Args:
        count: From the warmup, for its errors, to the number of optimizer steps; called only where it
            is needed.

    Example:
        >>> import torch
        >>> from lightning_adabelief import AdaBelief
        >>> with run_length(lambda warmup: 1000):
        ...     optimizer = AdaBelief([torch.nn.Parameter(torch.ones(3))], warmup=0.05)
        >>> optimizer.param_groups[0]["total_steps"]
        1000
    """
    token = _count.set(count)
    try:
        yield
    finally:
        _count.reset(token)


def known_total_steps(warmup: float) -> int | None:
    """The length of the run, if ``warmup`` is a share of it and somebody knows it."""
    count = _count.get()
    return count(warmup) if count and is_share(warmup) else None

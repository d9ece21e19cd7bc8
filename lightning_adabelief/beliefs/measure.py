"""Measure the statistics of layers, of layers together, and of a whole optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_adabelief.beliefs.adam import READABLE, read_state
from lightning_adabelief.beliefs.layers import (
    Columns,
    Layer,
    LayerBatch,
    split_into_batches,
    sum_silent,
    sum_sizes,
    sum_weights,
)
from lightning_adabelief.beliefs.statistic import LAYER_STATISTICS, OPTIMIZER_STATISTICS, Statistic
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.names import plain_name

ALWAYS_SUMMED = (sum_sizes, sum_silent, sum_weights)
"""Sums that summaries and warnings need, whatever the statistics."""


class Beliefs(NamedTuple):
    """The statistics of an optimizer at its latest step.

    Attributes:
        layers: From a parameter's name to its statistics.
        model: The statistics of all of them together; empty where no parameter has taken a step.
        groups: From a param group's name, or its position, to the statistics of scope ``"optimizer"`` that its
            options tell, such as ``lr``.
    """

    layers: dict[str, dict[str, float]]
    model: dict[str, float]
    groups: dict[str, dict[str, float]]


def measure(optimizer: Optimizer, model: nn.Module) -> Beliefs:
    """Measure what an optimizer believes, outside of a Trainer: in a plain loop, or in Lightning Fabric.

    The figures are those that :class:`~lightning_adabelief.BeliefMonitor` logs.

    Args:
        optimizer: An AdaBelief, or a ``torch.optim.Adam`` or ``AdamW``, after a step and before ``zero_grad``.
        model: The module it trains, for the names of the parameters. Where they are sharded, every rank must call.

    Returns:
        The statistics; parameters without a gradient or without a step are left out. This waits for the device.

    Raises:
        ValueError: If the optimizer is none of these.

    Example:
        >>> import torch
        >>> from lightning_adabelief import AdaBelief, beliefs
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = AdaBelief(model.named_parameters())
        >>> model(torch.ones(8, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> sorted(beliefs.measure(optimizer, model).layers)
        ['bias', 'weight']
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Fabric's and DeepSpeed's wrappers
    if not isinstance(optimizer, READABLE):
        known = ", ".join(kind.__name__ for kind in READABLE)
        raise ValueError(f"Cannot read the beliefs of a {type(optimizer).__name__}. Give an optimizer of: {known}")
    names = {param: plain_name(name) for name, param in model.named_parameters()}
    layers = {}
    for number, group in enumerate(optimizer.param_groups, start=1):
        for position, param in enumerate(group["params"]):
            state = optimizer.state.get(param)
            if state and param.grad is not None and param.numel() > 0:
                name = names.get(param, f"pg{number}.{position}")
                layers[name] = (param, *read_state(optimizer, state, group))
    if not layers:
        return Beliefs({}, {}, {})
    columns = measure_columns(list(layers.values()))
    own = isinstance(optimizer, AdaBelief)
    rows = [keep_known(row, own) for row in to_statistics(columns)]
    (together,) = to_statistics(add_up(columns, range(len(layers))))
    return Beliefs(dict(zip(layers, rows, strict=True)), keep_known(together, own), measure_groups(optimizer))


def measure_groups(optimizer: Optimizer) -> dict[str, dict[str, float]]:
    """Measure the statistics that a param group's options and its step tell.

    Args:
        optimizer: An AdaBelief, or an Adam, of which only ``lr`` can be told.

    Returns:
        From each group's ``name``, or ``pg1`` and so on, to its statistics at its latest step; without groups
        that have not taken a step.
    """
    found: dict[str, dict[str, float]] = {}
    own = isinstance(optimizer, AdaBelief)
    rows = [row for row in OPTIMIZER_STATISTICS if row.of_group and (own or row.adam_has_it)]
    for number, group in enumerate(optimizer.param_groups, start=1):
        states = [state for param in group["params"] if (state := optimizer.state.get(param))]
        if states:
            latest = max(states, key=lambda state: float(state["step"]))
            _, options = read_state(optimizer, latest, group)
            step = float(latest["step"])
            found[group.get("name", f"pg{number}")] = {
                row.name: row.of_group(options, step) for row in rows if row.of_group
            }
    return found


def keep_known(values: Mapping[str, float], is_adabelief: bool) -> dict[str, float]:
    """Return the values without the statistics that an Adam does not have, if they are of one."""
    unknown = set() if is_adabelief else {row.name for row in LAYER_STATISTICS if not row.adam_has_it}
    return {name: value for name, value in values.items() if name not in unknown}


def measure_columns(layers: Sequence[Layer]) -> Columns:
    """Measure the sums and medians that the statistics of layers are made from.

    Args:
        layers: Parameters after the step, with their gradients still in place, not empty, each with
            its state, at least one step old, and its param group. DTensors are gathered, a batch of
            layers at a time, and then every rank must call.

    Returns:
        One number a layer: sums by their name (:mod:`lightning_adabelief.beliefs.layers`), and medians by that
        of their statistic.
    """
    parts = [_measure_batch(batch) for batch in split_into_batches(layers)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _measure_batch(batch: LayerBatch) -> Columns:
    functions = [*ALWAYS_SUMMED, *(function for row in LAYER_STATISTICS for function in row.sums)]
    columns: Columns = {}
    for function in dict.fromkeys(functions):
        columns |= function(batch)
    for row in LAYER_STATISTICS:
        if row.of_weights and not row.of_sums:
            values = row.of_weights(batch.sample)
            if row.condensed == "median":
                columns[row.name] = values.nanmedian(dim=1).values.cpu().double()
            else:
                columns[row.name] = values.nanmean(dim=1).cpu().double() * columns["size"]
    return columns


def add_up(columns: Columns, rows: Sequence[int]) -> Columns:
    """Return the columns of several layers together, of one number each.

    Sums are added. A median is that of the layers' medians, weighted by their number of weights.

    Args:
        columns: From :func:`measure_columns`.
        rows: The layers' positions.
    """
    if len(rows) == len(columns["size"]) == 1:
        return columns
    sizes = columns["size"][rows]
    medians = {row.name for row in LAYER_STATISTICS if row.condensed == "median"}
    return {
        name: _weighted_median(values[rows], sizes) if name in medians else values[rows].sum(0, keepdim=True)
        for name, values in columns.items()
    }


def to_statistics(columns: Columns) -> list[dict[str, float]]:
    """Return each layer's statistics from its sums and medians.

    Args:
        columns: From :func:`measure_columns` or :func:`add_up`.

    Returns:
        For each layer, all statistics of scope ``"layer"`` that ``columns`` has the sums of, and what warnings
        need beside: ``weight_norm``, ``silent_fraction`` (of weights that have had no gradient at all) and ``size``.
    """
    values = {row.name: found for row in LAYER_STATISTICS if (found := _value(row, columns)) is not None}
    values["weight_norm"] = columns["weight_square"].sqrt()
    values["silent_fraction"] = columns["silent"] / columns["size"]
    values["size"] = columns["size"]
    lists = [column.tolist() for column in values.values()]
    return [dict(zip(values, numbers, strict=True)) for numbers in zip(*lists, strict=True)]


def _value(row: Statistic, columns: Columns) -> Tensor | None:
    if row.of_sums:
        return row.of_sums(columns)
    return columns[row.name] if row.condensed == "median" else columns[row.name] / columns["size"]


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    ordered, order = values.sort()
    fractions = weights[order] / weights.sum()
    middle = torch.searchsorted(fractions.cumsum(0), 0.5)
    return ordered[middle.clamp(max=len(ordered) - 1)].reshape(1)

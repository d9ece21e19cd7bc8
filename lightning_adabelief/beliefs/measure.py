"""Measure the statistics of layers, of layers together, and of a whole optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_adabelief.beliefs.elementwise import WeightBeliefs
from lightning_adabelief.beliefs.layers import Columns, Layer, LayerBatch, split_into_batches
from lightning_adabelief.beliefs.movement import Movement
from lightning_adabelief.beliefs.reading import (
    ADAM_OPTIONS,
    Readable,
    find_optimizers,
    find_readable,
    has_known_rule,
    has_known_update,
    read_state,
)
from lightning_adabelief.beliefs.sample import Sample
from lightning_adabelief.beliefs.statistic import LAYER_STATISTICS, OPTIMIZER_STATISTICS, Statistic
from lightning_adabelief.beliefs.sums import sum_grads, sum_silent, sum_sizes, sum_weights, take_norms, take_sums
from lightning_adabelief.optim.names import plain_name
from lightning_adabelief.optim.step_sums import StepSums

Sum = Callable[[LayerBatch], Columns]

SUMS_OF_ANY_OPTIMIZER: tuple[Sum, ...] = (sum_sizes, sum_weights, sum_grads)
"""Sums that need nothing but weights and gradients."""

SUMS_OF_ANY_BELIEF: tuple[Sum, ...] = (*SUMS_OF_ANY_OPTIMIZER, sum_silent)
"""Sums that summaries and warnings need beside those of the statistics."""

SUMS_OF_THE_UPDATE = {"update_square", "grad_momentum", "momentum_square", "used_grad_square"}
"""Sums that follow from the state only where the optimizer's rule is known."""


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

    Of an AdaBelief, torch's Adam and AdamW these are all statistics, but for ``update_norm`` and
    ``update_to_weight`` where rounding to 16 bits decides how far a weight moves. Of others with Adam's averages
    (RAdam, NAdam, timm's), these two and ``grad_momentum_cosine`` are missing; and of any other, all but
    ``grad_norm``. The monitor tells them by comparing weights before and after the step.

    Args:
        optimizer: Any, after a step and before ``zero_grad``.
        model: The module it trains, for the names of the parameters. Where they are sharded, every rank must call.

    Returns:
        The statistics; parameters without a gradient or without a step are left out. This waits for the device.

    Raises:
        ValueError: If it is a wrapper of several optimizers.

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
    optimizer, *others = find_optimizers(optimizer)  # out of Fabric's wrapper, say
    if others:
        kinds = ", ".join(type(each).__name__ for each in [optimizer, *others])
        raise ValueError(f"Cannot measure {len(others) + 1} optimizers at once: {kinds}. Measure each by itself")
    layers = read_layers(optimizer)
    if not layers:
        return Beliefs({}, {}, {})
    in_model: dict[Tensor, str] = {param: plain_name(name) for name, param in model.named_parameters()}
    names = [in_model.get(param, name) for name, (param, *_) in layers.items()]
    columns = measure_columns_of(optimizer, list(layers.values()))
    (together,) = to_statistics(add_up(columns, range(len(layers))))
    return Beliefs(dict(zip(names, to_statistics(columns), strict=True)), together, measure_groups(optimizer))


def read_layers(optimizer: Optimizer, keep: Callable[[Tensor], bool] = lambda param: True) -> dict[str, Layer]:
    """Return the parameters that can be measured, with state and group as AdaBelief has them.

    Args:
        optimizer: Any, after its step.
        keep: True for a parameter to return.

    Returns:
        Each by its position, such as ``pg1.0``; without those that have no gradient, no weight or no step.
        Where the states tell no belief, they and the groups are the optimizer's own.
    """
    readable = find_readable(optimizer)
    layers: dict[str, Layer] = {}
    for number, group in enumerate(optimizer.param_groups, start=1):
        for position, param in enumerate(group["params"]):
            if param.grad is None or param.numel() == 0 or not keep(param):
                continue
            state = optimizer.state.get(param, {})
            if readable is Readable.GRADIENT:
                layers[f"pg{number}.{position}"] = (param, state, group)
            elif state:
                layers[f"pg{number}.{position}"] = (param, *read_state(optimizer, state, group))
    return layers


def measure_groups(optimizer: Optimizer) -> dict[str, dict[str, float]]:
    """Measure the statistics that a param group's options and its step tell.

    Args:
        optimizer: Any; of one that is no AdaBelief only ``lr`` can be told.

    Returns:
        From each group's ``name``, or ``pg1`` and so on, to its statistics at its latest step; without groups
        that have not taken a step.
    """
    found: dict[str, dict[str, float]] = {}
    readable = find_readable(optimizer)
    rows = [row for row in OPTIMIZER_STATISTICS if row.of_group and readable >= row.needs]
    for number, group in enumerate(optimizer.param_groups, start=1):
        step, options = 1.0, {**group, **ADAM_OPTIONS}
        if readable > Readable.GRADIENT:
            states = [state for param in group["params"] if (state := optimizer.state.get(param))]
            if not states:
                continue
            latest = max(states, key=lambda state: float(state.get("step", 0)))
            state, options = read_state(optimizer, latest, group)
            step = float(state["step"])
        elif not isinstance(group.get("lr"), float | int | Tensor):
            continue
        found[group.get("name", f"pg{number}")] = {
            row.name: row.of_group(options, step) for row in rows if row.of_group
        }
    return found


def measure_columns(
    layers: Sequence[Layer], readable: Readable = Readable.BELIEF, step_sums: StepSums | None = None
) -> Columns:
    """Measure the sums and medians that the statistics of layers are made from.

    Args:
        layers: Of :func:`read_layers`, after the step. DTensors are gathered, a batch of layers at a time, and
            then every rank must call.
        readable: How much can be read of their optimizer.
        step_sums: The sums that their optimizer has taken in its step, which need not be taken again.

    Returns:
        One number a layer: sums by their name (:mod:`lightning_adabelief.beliefs.sums`), and medians by that
        of their statistic. Those that the optimizer does not tell are missing.
    """
    positions: list[int] = []
    parts = []
    for own_positions, batch in split_into_batches(layers, step_sums):
        positions += own_positions
        parts.append(_measure_batch(batch, readable))
    in_order = torch.tensor(positions).argsort()
    table = torch.cat([torch.stack(list(part.values())) for part in parts], dim=1)
    return dict(zip(parts[0], table[:, in_order].unbind(), strict=True))


def measure_columns_of(optimizer: Optimizer, layers: Sequence[Layer], movement: Movement | None = None) -> Columns:
    """Measure the columns of an optimizer's layers, and their update by comparison where no formula tells it.

    Args:
        optimizer: Any.
        layers: See :func:`measure_columns`.
        movement: The copies from before the step, where the update does not follow from the state; without them,
            the sums of the update are missing there.
    """
    step_sums = getattr(optimizer, "step_sums", None) or {}
    columns = measure_columns(layers, find_readable(optimizer), step_sums)
    if has_known_update(optimizer) or all(param in step_sums for param, *_ in layers):
        return columns
    # A known rule still tells the momentum before the step; rounding changed the update alone.
    untold = {"update_square"} if has_known_rule(optimizer) else SUMS_OF_THE_UPDATE
    columns = {name: values for name, values in columns.items() if name not in untold}
    seen = movement.sum_updates(layers) if movement else {}
    return columns | {name: values for name, values in seen.items() if name in untold}


def _measure_batch(batch: LayerBatch, readable: Readable) -> Columns:
    columns: Columns = {}
    if not batch.sums:
        batch.sums = take_norms(batch) if readable is Readable.GRADIENT else take_sums(batch)
    if readable is Readable.GRADIENT:
        for function in SUMS_OF_ANY_OPTIMIZER:
            columns |= function(batch)
        return columns
    rows = [row for row in LAYER_STATISTICS if readable >= row.needs]
    for function in dict.fromkeys([*SUMS_OF_ANY_BELIEF, *(function for row in rows for function in row.sums)]):
        columns |= function(batch)
    moving = columns["size"] - columns["silent"]
    columns["counted"] = moving.where(moving > 0, columns["size"])
    for row in rows:
        if row.of_weights and not row.of_sums:
            values = torch.cat([_condense(row.of_weights, row.condensed, sample) for sample in batch.samples])
            columns[row.name] = values.cpu().double() * (1 if row.condensed == "median" else columns["counted"])
    return columns


def _condense(of_weights: Callable[[WeightBeliefs], Tensor], condensed: str, sample: Sample) -> Tensor:
    """Return the median or mean of each row of a sample."""
    if condensed == "median":
        return of_weights(sample.middle).squeeze(-1)
    return (of_weights(sample.weights) * sample.counted).nanmean(dim=1)


def add_up(columns: Columns, rows: Sequence[int]) -> Columns:
    """Return the columns of several layers together, of one number each.

    Sums are added. A median is that of the layers' medians, weighted by their numbers of weights that counted.

    Args:
        columns: From :func:`measure_columns`.
        rows: The layers' positions.
    """
    if len(rows) == len(columns["size"]) == 1:
        return columns
    chosen = torch.stack(list(columns.values()))[:, list(rows)]
    of_rows = dict(zip(columns, chosen.unbind(), strict=True))
    sums = dict(zip(columns, chosen.sum(dim=1, keepdim=True).unbind(), strict=True))
    sizes = of_rows.get("counted", of_rows["size"])
    medians = [row.name for row in LAYER_STATISTICS if row.condensed == "median" and row.name in columns]
    return sums | {name: _weighted_median(of_rows[name], sizes) for name in medians}


def to_statistics(columns: Columns) -> list[dict[str, float]]:
    """Return each layer's statistics from its sums and medians.

    Args:
        columns: From :func:`measure_columns` or :func:`add_up`.

    Returns:
        For each layer, all statistics of scope ``"layer"`` that ``columns`` has the sums of, and what warnings
        need beside: ``weight_norm``, ``size`` and, where there are averages, ``silent_fraction`` (of weights that
        have had no gradient at all).
    """
    values = {row.name: found for row in LAYER_STATISTICS if (found := _value(row, columns)) is not None}
    values["weight_norm"] = columns["weight_square"].sqrt()
    if "silent" in columns:
        values["silent_fraction"] = columns["silent"] / columns["size"]
    values["size"] = columns["size"]
    lists = [column.tolist() for column in values.values()]
    return [dict(zip(values, numbers, strict=True)) for numbers in zip(*lists, strict=True)]


def _value(row: Statistic, columns: Columns) -> Tensor | None:
    try:
        if row.of_sums:
            return row.of_sums(columns)
        return columns[row.name] if row.condensed == "median" else columns[row.name] / columns["counted"]
    except KeyError:  # a sum that this optimizer does not tell
        return None


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    ordered, order = values.sort()
    fractions = weights[order] / weights.sum()
    middle = torch.searchsorted(fractions.cumsum(0), 0.5)
    return ordered[middle.clamp(max=len(ordered) - 1)].reshape(1)

"""An optimizer under watch: its layers' names, its steps counted, its beliefs measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from lightning_adabelief.beliefs.layers import LAYER_STATISTICS, Layer, layer_statistics, model_statistics, norms
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.migrate import adam_as_adabelief
from lightning_adabelief.optim.names import plain_name
from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.scaling import rectification, warmup_factor

UNCLIPPED = "unclipped_grad_norm"
PLACES = 1 << 32  # more than an optimizer has parameters
NEVER = (1 << 63) - 1
LOOK = 1 << 12

NEGLIGIBLE = 1e-5
"""Of the median layer's gradient, root mean square: what is below is rounding, as a bias before a normalization has."""


class WatchedOptimizer:
    """Counts an AdaBelief's steps, or an Adam's, and holds what was last measured of its layers.

    Args:
        name: What the logs call the optimizer.
        optimizer: The optimizer. Of an Adam or AdamW, s_t is estimated as v_t - m_t^2.

    Attributes:
        attempted: Steps that Lightning set out to take.
        taken: Steps that reached the optimizer.
        measured_at: The batch, counted from 1, in which it was last measured.
        logged_skips: ``noticed_skips`` when last logged.
        layers: From a layer's name to its statistics, ``weight_norm``, ``silent_share``, ``size`` and ``eps``
            when last measured.
        notability: From a layer's name to how notable it has been, summed over the measurements.
    """

    def __init__(self, name: str, optimizer: Optimizer) -> None:
        self.name = name
        self.optimizer = optimizer
        self.attempted = 0
        self.taken = 0
        self.measured_at = 0
        self.logged_skips = 0
        self.layers: dict[str, dict[str, float]] = {}
        self.notability: Counter[str] = Counter()
        self._skipped_before = 0
        self._stood_still = torch.zeros(())
        self._unclipped: dict[Tensor, Tensor] = {}
        self._nonfinite = NonfiniteGradients()

    @property
    def is_adabelief(self) -> bool:
        """Whether its beliefs are its own, not an estimate."""
        return isinstance(self.optimizer, AdaBelief)

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds a part of the parameters (DTensors), so that all must measure together."""
        return any(hasattr(param, "full_tensor") for param, _ in self._parameters())

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics that layers have: Adam's eps is no part of an s_t."""
        return tuple(name for name in LAYER_STATISTICS if self.is_adabelief or name != "eps_share")

    @property
    def skipped_steps(self) -> int:
        """Steps set out for and not taken, those of a run resumed included; reading it may wait for the device."""
        return self.noticed_skips + int(self._stood_still)

    @property
    def noticed_skips(self) -> int:
        """Those of the skipped steps that never reached the optimizer."""
        return self._skipped_before + self.attempted - self.taken

    @property
    def stands_still(self) -> bool:
        """Whether the step under way changes nothing, as the gradient scaler has told a fused Adam."""
        return bool(getattr(self.optimizer, "found_inf", None))

    @property
    def nonfinite_steps(self) -> int:
        """Steps taken on a gradient with a NaN or an infinity; reading it waits for the device."""
        return self._nonfinite.count(self.is_sharded)

    def first_nonfinite(self, names: dict[Tensor, str]) -> tuple[str, int] | None:
        """The layer whose gradient was first not finite, and the optimizer's step then; waits for the device."""
        found = self._nonfinite.first(self.is_sharded)
        if found is None:
            return None
        place, taken = found
        param = self.parameters()[place]
        return names[param], self._step() - (self.taken - taken)

    def count_step(self) -> None:
        """Count a step, and whether its gradient was finite, without waiting for the device."""
        self.taken += 1
        self.attempted = max(self.attempted, self.taken)  # a raw optimizer steps without Lightning's hook
        found_inf = getattr(self.optimizer, "found_inf", None)
        if found_inf is not None:  # a fused Adam, told by the gradient scaler to stand still if it is 1
            self._stood_still = self._stood_still.to(found_inf.device) + found_inf.sum()
        else:
            self._nonfinite.look(self.parameters(), self.taken)

    def measure_unclipped(self) -> None:
        """Take the gradients' norms before they are clipped."""
        params = [param for param, _ in self._parameters() if param.grad is not None]
        self._unclipped = {}
        for device in {param.device for param in params}:
            there = [param for param in params if param.device == device]
            grads = [param.grad for param in there if param.grad is not None]
            self._unclipped |= dict(zip(there, norms(grads), strict=True))

    def measure(
        self, names: dict[Tensor, str], keep: Callable[[str], bool], layer_of: Callable[[str], str]
    ) -> dict[str, list[Layer]]:
        """Measure the layers that the last step moved; this waits for the device.

        Args:
            names: From a parameter to its name.
            keep: Whether a parameter of that name is to be measured.
            layer_of: From a parameter's name to that of the layer it belongs to.

        Returns:
            From a layer's name to its parameters, each with state and param group.
        """
        members = {
            names[param]: (param, *self._belief(param, group))
            for param, group in self._parameters()
            if param.grad is not None and self.optimizer.state.get(param) and keep(names[param])
        }
        if not members:
            return {}
        table = layer_statistics(list(members.values()))
        if not self.is_adabelief:
            table["eps_share"] = torch.full_like(table["eps_share"], torch.nan)
        table["size"] = torch.tensor([float(param.numel()) for param, *_ in members.values()])
        if self._unclipped:
            table[UNCLIPPED] = torch.stack([self._unclipped[param].cpu() for param, *_ in members.values()])
            self._unclipped = {}
        layers: dict[str, list[int]] = {}
        for i, name in enumerate(members):
            layers.setdefault(layer_of(name), []).append(i)
        everything = list(members.values())
        of_layers = {name: [everything[i] for i in rows] for name, rows in layers.items()}
        self.layers = {
            name: _summed_up(table, rows) | {"eps": max(group["eps"] for *_, group in of_layers[name])}
            for name, rows in layers.items()
        }
        self._add_notability()
        return of_layers

    def negligible(self) -> set[str]:
        """The layers whose gradient, when last measured, was nothing beside the others'."""
        sizes = {name: layer["grad_norm"] / math.sqrt(layer["size"]) for name, layer in self.layers.items()}
        usual = median(sizes.values())
        return {name for name, size in sizes.items() if size < NEGLIGIBLE * usual}

    def summary(self) -> dict[str, float]:
        """The statistics of all measured layers together."""
        columns = {name: torch.tensor([layer[name] for layer in self.layers.values()]) for name in self._columns()}
        return _summed_up(columns, list(range(len(self.layers))))

    def group_statistics(self) -> dict[str, dict[str, float]]:
        """From each param group's name to its rectification and warmup, at its latest step; Adam has neither."""
        groups = self.optimizer.param_groups if self.is_adabelief else []
        found = {}
        for number, group in enumerate(groups, start=1):
            states = [self.optimizer.state[param] for param in group["params"] if self.optimizer.state.get(param)]
            if states:
                step = max(float(state["step"]) for state in states)
                name = f"{self.name}/{group.get('name', f'pg{number}')}" if len(groups) > 1 else self.name
                found[name] = {
                    "rectification": rectification(step, as_number(group["betas"][1])) if group["rectify"] else 1.0,
                    "warmup": warmup_factor(step, group["warmup"], group["total_steps"]),
                }
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on counting from."""
        return {
            "skipped_steps": self.skipped_steps,
            "nonfinite_steps": self._nonfinite.count(sharded=False),  # no collective: rank 0 may be alone here
            "notability": dict(self.notability),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from :meth:`state_dict`."""
        self._skipped_before = self.logged_skips = state["skipped_steps"]
        self._nonfinite = NonfiniteGradients(state["nonfinite_steps"])
        self.notability = Counter(state["notability"])

    def parameters(self) -> list[Tensor]:
        """All its parameters, but for empty ones."""
        return [param for param, _ in self._parameters()]

    def _parameters(self) -> Iterable[tuple[Tensor, dict[str, Any]]]:
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                if param.numel() > 0:
                    yield param, group

    def _belief(self, param: Tensor, group: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        state = self.optimizer.state[param]
        return (state, group) if self.is_adabelief else adam_as_adabelief(state, group)

    def _step(self) -> int:
        return int(max(float(state["step"]) for state in self.optimizer.state.values() if state))

    def _columns(self) -> Sequence[str]:
        return list(next(iter(self.layers.values())))

    def _add_notability(self) -> None:
        """Add how far each layer's effective step size is, in powers of ten, from the median layer's."""
        sizes = torch.tensor([layer["effective_step_size"] for layer in self.layers.values()]).log10()
        distances = (sizes - sizes.nanmedian()).abs().nan_to_num(0.0, posinf=0.0)
        negligible = self.negligible()
        self.notability.update(
            {
                name: 0.0 if name in negligible else distance
                for name, distance in zip(self.layers, distances.tolist(), strict=True)
            }
        )


class NonfiniteGradients:
    """Counts the steps whose gradient has a NaN or an infinity, on the device, so that nothing waits for it.

    Of each gradient the first rows, :data:`LOOK` entries or so, are looked at, for reading all of them took 1 % of a
    training step on a CPU: what is not finite spreads to all layers below in the same step. They
    count as finite if their Euclidean norm is: beyond that, at 2e19 in float32, s_t is infinite as well.

    Args:
        count: Steps counted before.
    """

    def __init__(self, count: int = 0) -> None:
        self._count = torch.tensor(count)
        self._first_place = self._first_taken = torch.tensor(-1)

    def look(self, params: list[Tensor], taken: int) -> None:
        """Look at the gradients of a step.

        Args:
            params: All parameters, some of which may have no gradient.
            taken: The number of this step.
        """
        grads = [_beginning(_local(param.grad)) for param in params if param.grad is not None]
        if not grads:
            return
        device = grads[0].device
        together = all(grad.device == device for grad in grads)
        sizes = norms(grads) if together else torch.cat([norms([grad]).to(device) for grad in grads])
        if len(grads) < len(params):  # a 0 in the place of each that is missing
            found = iter(sizes.unbind())
            none = torch.zeros_like(sizes[0])
            sizes = torch.stack([none if param.grad is None else next(found) for param in params])
        bad = ~sizes.isfinite()
        self._count, self._first_place, self._first_taken = (
            value.to(device) for value in (self._count, self._first_place, self._first_taken)
        )
        first = bad.any() & (self._first_taken < 0)
        self._first_place = torch.where(first, bad.int().argmax(), self._first_place)
        self._first_taken = self._first_taken.masked_fill(first, taken)
        self._count = self._count + bad.any()

    def count(self, sharded: bool) -> int:
        """How many such steps; of shards, the most that any rank saw (every rank must call)."""
        return int(_over_ranks(self._count, torch.distributed.ReduceOp.MAX) if sharded else self._count)

    def first(self, sharded: bool) -> tuple[int, int] | None:
        """The parameter's place and the step's number, at the first such gradient; of shards, on any rank."""
        taken, place = self._first_taken, self._first_place
        order = torch.where(taken < 0, NEVER, taken * PLACES + place)
        earliest = int(_over_ranks(order, torch.distributed.ReduceOp.MIN) if sharded else order)
        return None if earliest == NEVER else (earliest % PLACES, earliest // PLACES)


def _beginning(grad: Tensor) -> Tensor:
    """The first rows of a gradient, of :data:`LOOK` entries or a little more, whatever its layout."""
    return grad if grad.numel() <= LOOK else grad[: 1 + LOOK * len(grad) // grad.numel()]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _over_ranks(value: Tensor, operation: Any) -> Tensor:
    value = value.clone()
    torch.distributed.all_reduce(value, op=operation)
    return value


def _summed_up(table: dict[str, Tensor], rows: list[int]) -> dict[str, float]:
    """One layer's statistics from its parameters' rows, a model's from its layers'."""
    columns = {name: values[rows] for name, values in table.items()}
    sizes = columns["size"]
    if len(rows) == 1:
        return {name: float(values) for name, values in columns.items()}
    found = model_statistics(columns, sizes) | {"size": float(sizes.sum())}
    if UNCLIPPED in columns:
        found[UNCLIPPED] = math.hypot(*columns[UNCLIPPED].tolist())
    return found


def find_optimizers(optimizers: Iterable[Optimizer]) -> list[WatchedOptimizer]:
    """Watch the AdaBeliefs, Adams and AdamWs among the optimizers.

    An optimizer is called by the ``name`` of its only param group, if it has one; others are named as
    LearningRateMonitor names them.
    """
    seen: Counter[str] = Counter()
    found = []
    for optimizer in map(unwrap, optimizers):
        first, *others = optimizer.param_groups
        kind = type(optimizer).__name__ if others else first.get("name", type(optimizer).__name__)
        if isinstance(optimizer, (AdaBelief, Adam, AdamW)):
            found.append(WatchedOptimizer(f"{kind}-{seen[kind]}" if seen[kind] else kind, optimizer))
        seen[kind] += 1
    return found


def unwrap(optimizer: Any) -> Any:
    """The optimizer itself: DeepSpeed's, for one, wraps it."""
    return getattr(optimizer, "optimizer", optimizer)


def parameter_names(watched: Iterable[WatchedOptimizer], module: torch.nn.Module) -> dict[Tensor, str]:
    """Name each parameter as the module does, plainly; one that is not the module's as its optimizer does."""
    in_module = {param: plain_name(name) for name, param in module.named_parameters()}
    names: dict[Tensor, str] = {}
    for item in watched:
        for number, group in enumerate(item.optimizer.param_groups, start=1):
            for i, param in enumerate(group["params"]):
                own = group["param_names"][i] if "param_names" in group else f"pg{number}.{i}"
                names[param] = in_module.get(param, f"{item.name}.{own}")
    return names

"""An optimizer under watch: its layers' names, its steps counted, its beliefs measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.belief import LAYER_STATISTICS, layer_statistics, model_statistics
from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.schedule import rectification, warmup_factor


class WatchedOptimizer:
    """Counts an AdaBelief's steps and holds what was last measured of its layers.

    Args:
        name: What the logs call the optimizer.
        optimizer: The optimizer.

    Attributes:
        attempted: Steps that Lightning set out to take.
        taken: Steps that reached the optimizer.
        measured_at: The batch, counted from 1, in which it was last measured.
        logged_skips: ``skipped_steps`` when last logged.
        layers: From a layer's name to its statistics and ``size`` when last measured.
        notability: From a layer's name to how notable it has been, summed over the measurements.
    """

    def __init__(self, name: str, optimizer: AdaBelief) -> None:
        self.name = name
        self.optimizer = optimizer
        self.attempted = 0
        self.taken = 0
        self.measured_at = 0
        self.logged_skips = 0
        self.layers: dict[str, dict[str, float]] = {}
        self.notability: Counter[str] = Counter()
        self._skipped_before = 0
        self._nonfinite = torch.zeros((), dtype=torch.int64)

    @property
    def skipped_steps(self) -> int:
        """Steps set out for and not taken, those of a run resumed included."""
        return self._skipped_before + self.attempted - self.taken

    @property
    def nonfinite_steps(self) -> int:
        """Steps taken on a gradient with a NaN or an infinity; reading it waits for the device."""
        return int(self._nonfinite)

    def count_step(self, check_finite: bool) -> None:
        """Count a step and, if asked, whether its gradient was finite, without waiting for the device."""
        self.taken += 1
        self.attempted = max(self.attempted, self.taken)  # a raw optimizer steps without Lightning's hook
        if not check_finite:
            return
        grads = [param.grad for param, _ in self._parameters() if param.grad is not None]
        if grads:
            device = grads[0].device
            # The largest entry, for the sum of squares overflows where every entry is finite.
            largest = torch.stack([norm.to(device) for norm in torch._foreach_norm(grads, math.inf)])
            self._nonfinite = self._nonfinite.to(device) + ~largest.isfinite().all()

    def measure(self, names: dict[Tensor, str], keep: Callable[[str], bool]) -> dict[str, tuple[Any, ...]]:
        """Measure the layers that the last step moved; this waits for the device.

        Args:
            names: From a parameter to its layer's name.
            keep: Whether a layer of that name is to be measured.

        Returns:
            From a layer's name to its parameter, state and param group.
        """
        layers = {
            names[param]: (param, self.optimizer.state[param], group)
            for param, group in self._parameters()
            if param.grad is not None and self.optimizer.state.get(param) and keep(names[param])
        }
        if layers:
            rows = [layer_statistics(*layer) for layer in layers.values()]
            device = rows[0]["s_t"].device
            table = torch.stack([torch.stack(list(row.values())).to(device) for row in rows]).tolist()
            self.layers = {
                name: dict(zip(rows[0], values, strict=True), size=layer[0].numel())
                for (name, layer), values in zip(layers.items(), table, strict=True)
            }
            self._add_notability()
        return layers

    def summary(self) -> dict[str, float]:
        """The statistics of all measured layers together."""
        columns = {
            name: torch.tensor([layer[name] for layer in self.layers.values()], dtype=torch.float64)
            for name in (*LAYER_STATISTICS, "weight_norm", "size")
        }
        return model_statistics(columns, columns["size"])

    def group_statistics(self) -> dict[str, dict[str, float]]:
        """From each param group's name to its rectification and warmup, at its latest step."""
        groups = self.optimizer.param_groups
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
            "nonfinite_steps": self.nonfinite_steps,
            "notability": dict(self.notability),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from :meth:`state_dict`."""
        self._skipped_before = self.logged_skips = state["skipped_steps"]
        self._nonfinite = torch.tensor(state["nonfinite_steps"])
        self.notability = Counter(state["notability"])

    def _parameters(self) -> Iterable[tuple[Tensor, dict[str, Any]]]:
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                if param.numel() > 0:
                    yield param, group

    def _add_notability(self) -> None:
        """Add how far each layer's effective step size is, in powers of ten, from the median layer's."""
        sizes = torch.tensor([layer["effective_step_size"] for layer in self.layers.values()]).log10()
        distances = (sizes - sizes.nanmedian()).abs().nan_to_num(0.0, posinf=0.0)
        self.notability.update(dict(zip(self.layers, distances.tolist(), strict=True)))


def find_optimizers(optimizers: Iterable[Optimizer]) -> list[WatchedOptimizer]:
    """Watch the AdaBeliefs among the optimizers, named as LearningRateMonitor names optimizers."""
    seen: Counter[str] = Counter()
    found = []
    for optimizer in map(unwrap, optimizers):
        kind = type(optimizer).__name__
        if isinstance(optimizer, AdaBelief):
            found.append(WatchedOptimizer(f"{kind}-{seen[kind]}" if seen[kind] else kind, optimizer))
        seen[kind] += 1
    return found


def unwrap(optimizer: Any) -> Any:
    """The optimizer itself: DeepSpeed's, for one, wraps it."""
    return getattr(optimizer, "optimizer", optimizer)


def parameter_names(watched: Iterable[WatchedOptimizer], module: torch.nn.Module) -> dict[Tensor, str]:
    """Name each parameter as its optimizer does (``param_names``), else as the module does.

    Where optimizers give one name to several parameters, all go by the module's names.
    """
    in_module = {param: name for name, param in module.named_parameters()}
    by_module: dict[Tensor, str] = {}
    by_optimizer: dict[Tensor, str] = {}
    for item in watched:
        for number, group in enumerate(item.optimizer.param_groups, start=1):
            for i, param in enumerate(group["params"]):
                by_module[param] = in_module.get(param, f"{item.name}.pg{number}.{i}")
                by_optimizer[param] = group["param_names"][i] if "param_names" in group else by_module[param]
    unique = len(set(by_optimizer.values())) == len(by_optimizer)
    return by_optimizer if unique else by_module

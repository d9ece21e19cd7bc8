"""An optimizer being tracked: its steps counted, its layers measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.beliefs.layers import Columns, Layer, norms
from lightning_adabelief.beliefs.measure import (
    add_up,
    measure_columns_of,
    measure_groups,
    read_layers,
    to_statistics,
)
from lightning_adabelief.beliefs.movement import Movement
from lightning_adabelief.beliefs.reading import Readable, find_optimizers, find_readable, has_known_update
from lightning_adabelief.callbacks.belief_monitor.nonfinite import NonfiniteGradients
from lightning_adabelief.callbacks.belief_monitor.released import ReleasedGradients
from lightning_adabelief.callbacks.belief_monitor.sgd_steps import SgdSteps
from lightning_adabelief.callbacks.optimizer_names import name_optimizers
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.gradient_release import find_release
from lightning_adabelief.optim.step_sums import SUMS

NEGLIGIBLE_GRADIENT = 1e-5
"""A layer whose root-mean-square gradient is below this fraction of the median layer's has rounding for a
gradient, as a bias before a normalization layer does."""


class OptimizerTracker:
    """Counts an optimizer's steps and holds the latest statistics of its layers.

    Args:
        name: The optimizer's name in the logs.
        optimizer: An AdaBelief; or any other, of which is measured what can be read.

    Attributes:
        attempted: Steps that Lightning set out to take.
        taken: Steps that reached the optimizer.
        measured_at: The batch, counted from 1, in which it was last measured.
        logged_skips: ``noticed_skips`` when last logged.
        layers: From a layer's name to its statistics when last measured, with ``weight_norm`` and ``size``
            beside them and, of an AdaBelief, ``silent_fraction`` and ``eps``.
        summary: The statistics of all layers together when last measured.
        notability: From a layer's name to how notable it has been, summed over the measurements.
        shown: The layers that were last chosen as the most notable.
        sgd_steps: The steps of SGD that an AdaBelief began with.
    """

    def __init__(self, name: str, optimizer: Optimizer) -> None:
        self.name = name
        self.optimizer = optimizer
        self.attempted = 0
        self.taken = 0
        self.measured_at = 0
        self.logged_skips = 0
        self.layers: dict[str, dict[str, float]] = {}
        self.summary: dict[str, float] = {}
        self.notability: defaultdict[str, float] = defaultdict(float)
        self.shown: set[str] = set()
        self._skipped_before = 0
        self._skipped_on_device = torch.zeros(())
        self._own_skips = self._copy_own_skips(), self._copy_own_skips()  # before and after the latest step
        self._unclipped: dict[Tensor, Tensor] = {}
        self._movement: Movement | None = None
        self._nonfinite = NonfiniteGradients()
        self._released: ReleasedGradients | None = None
        self.sgd_steps = SgdSteps()

    @property
    def is_adabelief(self) -> bool:
        """True if the optimizer's beliefs are its own, not an estimate."""
        return isinstance(self.optimizer, AdaBelief)

    @property
    def readable(self) -> Readable:
        """The part of a belief that can be read of the optimizer, after its first step."""
        return find_readable(self.optimizer)

    @property
    def needs_copies(self) -> bool:
        """True if what a step does can only be told from copies made before it."""
        return not has_known_update(self.optimizer)

    @property
    def is_sharded(self) -> bool:
        """True if each rank holds a part of the parameters (DTensors), so that all must measure together."""
        return any(hasattr(param, "full_tensor") for param, _ in self._iterate_parameters())

    @property
    def skipped_steps(self) -> int:
        """Steps attempted and not taken, those of a resumed run included; reading it may wait for the device."""
        return self.noticed_skips + int(self._skipped_on_device) + self.skipped_by_optimizer

    @property
    def skipped_by_optimizer(self) -> int:
        """Steps that an AdaBelief with ``nonfinite="skip"`` left out, by its own count; this waits for the device."""
        return self.optimizer.skipped_steps if isinstance(self.optimizer, AdaBelief) else 0

    @property
    def noticed_skips(self) -> int:
        """The skipped steps that never reached the optimizer."""
        return self._skipped_before + self.attempted - self.taken

    @property
    def is_skipping(self) -> bool:
        """True if the step just counted changed nothing: the gradient scaler, or ``nonfinite="skip"``, left it out."""
        return bool(getattr(self.optimizer, "found_inf", None)) or bool(self._own_skips[1] > self._own_skips[0])

    @property
    def nonfinite_steps(self) -> int:
        """Steps taken on a gradient with a NaN or an infinity; reading it waits for the device."""
        return self._nonfinite.count(self.is_sharded)

    def first_nonfinite(self) -> tuple[Tensor, int] | None:
        """Return the parameter whose gradient was first not finite, and the optimizer's step then; this waits."""
        found = self._nonfinite.first(self.is_sharded)
        if found is None:
            return None
        index, taken = found
        steps_since = self.taken - taken
        return self.parameters()[index], self._latest_step() - steps_since

    def count_step(self) -> None:
        """Count a step, and whether its gradient was finite, without waiting for the device."""
        self.taken += 1
        if isinstance(self.optimizer, AdaBelief):
            self.sgd_steps.check_step(self.optimizer)
        self.attempted = max(self.attempted, self.taken)  # a raw optimizer steps without Lightning's hook
        self._own_skips = self._own_skips[1], self._copy_own_skips()
        found_inf = getattr(self.optimizer, "found_inf", None)
        if found_inf is not None:  # 1 where the gradient scaler told a fused Adam to skip the step
            self._skipped_on_device = self._skipped_on_device.to(found_inf.device) + found_inf.sum()
        elif any(group.get("nonfinite") != "skip" for group in self.optimizer.param_groups):
            self._check_finite()

    def register_hooks(self, is_due: Callable[[], bool], after_step: Callable[..., None]) -> list[Any]:
        """Register hooks around each step, and return their handles; none where the optimizer takes no hooks.

        Args:
            is_due: True in a step that is to be measured.
            after_step: Called after each step.
        """
        if not hasattr(self.optimizer, "_optimizer_step_post_hooks"):  # its class does without torch's constructor
            return []
        handles: list[Any] = [self.optimizer.register_step_post_hook(after_step)]
        if self.needs_copies or self.is_adabelief:
            handles.append(self.optimizer.register_step_pre_hook(lambda *_: self.prepare_step() if is_due() else None))
        release = find_release(self.optimizer)
        if release is not None:
            self._released = ReleasedGradients(self.optimizer, is_due)
            handles.append(release.watch(self._released.measure))
        return handles

    def prepare_step(self) -> None:
        """Prepare for a step that is to be measured: ask for its sums, and copy weights and momenta if need be."""
        if isinstance(self.optimizer, AdaBelief):
            self.optimizer.step_sums = {}
        if self.needs_copies:
            self._movement = Movement(self.optimizer)

    def measure_unclipped(self) -> None:
        """Measure the gradients' norms before they are clipped."""
        params = [param for param, _ in self._iterate_parameters() if param.grad is not None]
        self._unclipped = {}
        for device in {param.device for param in params}:
            on_device = [param for param in params if param.device == device]
            grads = [param.grad for param in on_device if param.grad is not None]
            self._unclipped |= dict(zip(on_device, norms(grads), strict=True))

    def measure(
        self, names: dict[Tensor, str], keep: Callable[[str], bool], layer_of: Callable[[str], str]
    ) -> dict[str, list[Layer]]:
        """Measure the layers that the last step moved; this waits for the device.

        Args:
            names: From a parameter to its name.
            keep: True for the name of a parameter to measure.
            layer_of: From a parameter's name to that of the layer it belongs to.

        Returns:
            From a layer's name to its parameters, each with state and param group; ``layers`` and
            ``summary`` have their statistics.
        """
        movement, self._movement = self._movement, None
        layers, columns = self._measure_columns(lambda param: keep(names[param]), movement)
        if not layers:
            return {}
        rows: dict[str, list[int]] = {}
        for row, (param, *_) in enumerate(layers):
            rows.setdefault(layer_of(names[param]), []).append(row)
        members_of = {name: [layers[row] for row in of_layer] for name, of_layer in rows.items()}
        if len(rows) < len(layers):
            parts = [add_up(columns, of_layer) for of_layer in rows.values()]
            columns = {name: torch.cat([part[name] for part in parts]) for name in columns}
        self.layers = dict(zip(rows, to_statistics(columns), strict=True))
        if self.is_adabelief:
            for name, values in self.layers.items():
                values["eps"] = max(group["eps"] for *_, group in members_of[name])
        (self.summary,) = to_statistics(add_up(columns, range(len(rows))))
        self._add_notability()
        return members_of

    def measure_groups(self) -> dict[str, dict[str, float]]:
        """Return the statistics of the param groups, by the names that the logs have for them."""
        groups = measure_groups(self.optimizer)
        if len(self.optimizer.param_groups) == 1:
            return dict(zip([self.name], groups.values(), strict=False))  # no group before its first step
        return {f"{self.name}/{group}": values for group, values in groups.items()}

    def negligible_layers(self) -> set[str]:
        """Return the layers whose gradient, when last measured, was only rounding beside the others'."""
        rms = {name: layer["grad_norm"] / math.sqrt(layer["size"]) for name, layer in self.layers.items()}
        usual = median(rms.values())
        return {name for name, size in rms.items() if size < NEGLIGIBLE_GRADIENT * usual}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and notabilities, so that a resumed run goes on from them."""
        return {
            "skipped_steps": self.skipped_steps - self.skipped_by_optimizer,  # which keeps its own count
            "nonfinite_steps": self._nonfinite.count(sharded=False),  # no collective: rank 0 may be alone here
            "notability": dict(self.notability),
            "shown": sorted(self.shown),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from :meth:`state_dict`."""
        self._skipped_before = self.logged_skips = state["skipped_steps"]
        self._nonfinite = NonfiniteGradients(state["nonfinite_steps"])
        self.notability = defaultdict(float, state["notability"])
        self.shown = set(state.get("shown", ()))

    def parameters(self) -> list[Tensor]:
        """Return all its parameters, but for empty ones."""
        return [param for param, _ in self._iterate_parameters()]

    def _iterate_parameters(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                if param.numel() > 0:
                    yield param, group

    def _copy_own_skips(self) -> Tensor:
        """Copy an AdaBelief's count of steps left out, on its device; 0 where it counts none."""
        counts = [group["skipped_steps"] for group in self.optimizer.param_groups if "skipped_steps" in group]
        return torch.as_tensor(counts[0]).clone() if counts else torch.zeros(())

    def _check_finite(self) -> None:
        """Look for gradients that are not finite, of a step just taken."""
        params = self.parameters()
        step_sums = getattr(self.optimizer, "step_sums", None) or {}
        released = self._released.take_norms(params) if self._released else None
        if released is not None:
            self._nonfinite.check_norms(released, self.taken)
        elif step_sums and all(param in step_sums for param in params):
            sums = torch.stack([step_sums[param].to(params[0].device) for param in params])
            self._nonfinite.check_norms(sums[:, SUMS.index("grad_square")], self.taken)
        else:
            self._nonfinite.check_step(params, self.taken)

    def _measure_columns(
        self, keep: Callable[[Tensor], bool], movement: Movement | None
    ) -> tuple[list[Layer], Columns]:
        """Measure the layers with a gradient, or take what was measured as their gradients were released."""
        if self._released:
            layers, columns = self._released.take_layers([param for param in self.parameters() if keep(param)])
            if layers:
                return layers, columns
        layers = list(read_layers(self.optimizer, keep).values())
        if not layers:
            return [], {}
        columns = measure_columns_of(self.optimizer, layers, movement)
        if self._unclipped:
            unclipped = torch.stack([self._unclipped[param].cpu() for param, *_ in layers])
            columns["unclipped_grad_square"] = unclipped.double().square()
            self._unclipped = {}
        return layers, columns

    def _latest_step(self) -> int:
        """Return the optimizer's own count of its steps, or where it keeps none that of this training."""
        steps = [float(state["step"]) for state in self.optimizer.state.values() if "step" in state]
        return int(max(steps)) if steps else self.taken

    def _add_notability(self) -> None:
        """Add how far each layer's step size is, in powers of ten, from the median layer's."""
        measure = "effective_step_size" if self.readable > Readable.GRADIENT else "update_to_weight"
        sizes = torch.tensor([layer.get(measure, torch.nan) for layer in self.layers.values()]).log10()
        distances = (sizes - sizes.nanmedian()).abs().nan_to_num(0.0, posinf=0.0)
        negligible = self.negligible_layers()
        for name, distance in zip(self.layers, distances.tolist(), strict=True):
            self.notability[name] += 0.0 if name in negligible else float(distance)


def track_optimizers(optimizers: Iterable[Optimizer]) -> list[OptimizerTracker]:
    """Return a tracker for each of a Trainer's optimizers that has parameters, out of their wrappers."""
    found = {id(inner): inner for optimizer in optimizers for inner in find_optimizers(optimizer)}
    unwrapped = [optimizer for optimizer in found.values() if optimizer.param_groups]
    return [OptimizerTracker(*pair) for pair in zip(name_optimizers(unwrapped), unwrapped, strict=True)]

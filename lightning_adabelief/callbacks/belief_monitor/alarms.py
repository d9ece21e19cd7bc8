"""Warnings of BeliefMonitor: which layer, what is wrong with it, and what to do."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from math import inf, isfinite
from statistics import median

from lightning_adabelief.beliefs.statistic import LAYER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.clipping import Clipping
from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.scaling import WARN_BELOW_MEAN_FACTOR, mean_step_factor

MAX_EPS_FRACTION = 0.5
"""Above this fraction of eps in s_t, eps and not belief sets the step."""

MAX_GAIN = 10.0
"""Above this many times Adam's step, gradients must have stayed the same for hundreds of steps."""

SPIKE_FACTOR = 10.0
"""A spike is above this many times the running median, of a layer's update over weight and of its update."""

MAX_SGD_UPDATE = 0.25
"""A step of SGD above this fraction of the norm of all weights undoes their initialization."""

MEDIAN_LENGTH = 20
"""The number of measurements that the running median looks back on; half of them must be there."""

TIMES_IN_A_ROW = 3
"""The number of measurements in a row that must find a layer eps-bound, exploding or dead."""


class Alarms:
    """Finds what is worth a warning in an optimizer's latest measurement, once for each layer and kind.

    Args:
        tracker: The optimizer.
        clipping: The clipping of the training's gradients.
        statistics: The names of the statistics that are logged.
    """

    def __init__(self, tracker: OptimizerTracker, clipping: Clipping, statistics: Sequence[str]) -> None:
        self.tracker = tracker
        self.clipping = clipping
        self._asked = [row.name for row in LAYER_STATISTICS if row.name in statistics]
        self._warned: set[tuple[str, str]] = set()
        self._history: dict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=MEDIAN_LENGTH))
        self._times_in_a_row: dict[tuple[str, str], int] = {}

    def check(self, step: int) -> list[str]:
        """Check the layers as last measured.

        Args:
            step: The step that loggers are given.

        Returns:
            The warnings to give, one a kind, of layers not yet warned of.
        """
        found = [self._check_eps(step), self._check_gain(step)] if self.tracker.is_adabelief else []
        found += [self._check_dead(step), self._check_spike(step), self._check_missing(), self._check_skipped(step)]
        return [text for text in found if text]

    def check_scaling(self, total_steps: float) -> str | None:
        """Return the warning to give where warmup and rectification take more than half of lr from a run this short.

        ``configure_adabelief`` gives its own, before training.

        Args:
            total_steps: Length of the run in optimizer steps.
        """
        optimizer = self.tracker.optimizer
        is_reported = getattr(getattr(optimizer, "run_follower", None), "reports_scaling", False)
        if not isinstance(optimizer, AdaBelief) or is_reported or not 0 < total_steps < inf:
            return None
        choices = {1.0: ""}
        for group in optimizer.param_groups:
            rectify, warmup = group["rectify"], group["warmup"]
            if not rectify and not warmup:
                continue
            factor = mean_step_factor(int(total_steps), beta2=group["betas"][1], rectify=rectify, warmup=warmup)
            choices[factor] = f"rectify={rectify} and warmup={warmup}"
        smallest = min(choices)
        if smallest >= WARN_BELOW_MEAN_FACTOR:
            return None
        return (
            f"{self.tracker.name}: {choices[smallest]} let only {smallest:.2f} of lr act on average over the "
            f"{int(total_steps):,} steps of this run. Give rectify=False and a short warmup, or build the optimizer by "
            "configure_adabelief, which chooses by the length of the run"
        )

    def check_sgd_steps(self) -> str | None:
        """Return the warning to give, once, where the first steps, those of SGD, moved the weights too far."""
        steps = self.tracker.sgd_steps
        if not steps.are_over or steps.longest <= MAX_SGD_UPDATE or not self._select_new("sgd", [self.tracker.name]):
            return None
        return (
            f"{self.tracker.name}: the steps of SGD that rectification begins with moved the weights by up to "
            f"{steps.longest:.2g} times their norm, in proportion to gradients this large. Scale the inputs, give "
            "degenerated_to_sgd=False, or rectify=False and a warmup"
        )

    def check_end(self, step: int) -> list[str | None]:
        """Return the warnings to give when training has ended, of steps never seen and of steps skipped.

        Args:
            step: The step that loggers are given.
        """
        return [self._check_unseen(), self._check_skipped(step)]

    def _check_unseen(self) -> str | None:
        if self.tracker.attempted == 0 or self.tracker.taken > 0:
            return None
        return (
            f"BeliefMonitor saw no steps of {self.tracker.name}, though the Trainer set out to take some: its "
            "step() calls no hooks, or is not called, or every step was skipped"
        )

    def check_nonfinite(self, layer: str, step: int) -> list[str]:
        """Return the warning of the first gradient that was not finite, unless it was given before.

        Args:
            layer: Its layer.
            step: The optimizer's step then.
        """
        if not self._select_new("nonfinite", [self.tracker.name]):
            return []
        return [
            f"{self.tracker.name}: the gradient of {layer} was not finite at step {step}, and the step was "
            "taken. From there the optimizer's state is not finite either: go back to an earlier checkpoint. "
            "Trainer(detect_anomaly=True) finds the operation; a lower lr, warmup or "
            f"{self.clipping.advice} may prevent it"
        ]

    def _check_eps(self, step: int) -> str | None:
        negligible = self.tracker.negligible_layers()
        fractions = {
            name: layer["eps_share"]
            for name, layer in self.tracker.layers.items()
            if layer["silent_fraction"] < 1 and name not in negligible
        }
        is_high = [name for name, fraction in fractions.items() if fraction > MAX_EPS_FRACTION]
        layers = self._select_lasting("eps", is_high)
        if not layers:
            return None
        worst = max(layers, key=lambda name: fractions[name])
        percent, eps = 100 * fractions[worst], self.tracker.layers[worst]["eps"]
        return (
            f"{self._describe(layers, step)}: runs as SGD with momentum, because up to {percent:.0f} % of s_t is "
            f"accumulated eps, not belief. Lower eps (it is {eps:g}) to let AdaBelief adapt"
        )

    def _check_gain(self, step: int) -> str | None:
        gains = {name: layer["step_gain_over_adam"] for name, layer in self.tracker.layers.items()}
        layers = self._select_lasting("gain", [name for name, gain in gains.items() if gain > MAX_GAIN])
        if not layers:
            return None
        cause = (
            "gradients clipped by value stay at the threshold. Clip by norm: gradient_clip_algorithm='norm'"
            if self.clipping.is_by_value
            else "the gradient hardly changes (clipped by value, or always the same batch?). Clip by norm, "
            "or bound the step by amsgrad=True or a larger eps"
        )
        times = f"{max(gains[name] for name in layers):.0f} times Adam's"
        return f"{self._describe(layers, step)}: s_t is near 0 and the step up to {times}, because {cause}"

    def _check_dead(self, step: int) -> str | None:
        is_dead = [name for name, layer in self.tracker.layers.items() if layer["grad_norm"] == 0]
        layers = self._select_lasting("dead", is_dead)
        if not layers:
            return None
        consequence = "; s_t decays to 0 and the effective step size grows" if self.tracker.is_adabelief else ""
        return (
            f"{self._describe(layers, step)}: the gradient is 0 in each of the last {TIMES_IN_A_ROW} measurements"
            f"{consequence}. Freeze the layer (requires_grad_(False)), or look for what cuts it off, such as units "
            "that never fire"
        )

    def _check_spike(self, step: int) -> str | None:
        times = {}
        negligible = self.tracker.negligible_layers()
        for name, layer in self.tracker.layers.items():
            if name in negligible or "update_norm" not in layer:
                continue
            # Both must jump: a single weight that passes through 0 is small beside any update.
            now, history = (layer["update_to_weight"], layer["update_norm"]), self._history[name]
            if len(history) >= MEDIAN_LENGTH // 2:
                before = list(zip(*history, strict=True))
                if all(value > SPIKE_FACTOR * median(values) > 0 for value, values in zip(now, before, strict=True)):
                    times[name] = now[0] / median(before[0])
            if all(map(isfinite, now)):
                history.append(now)
        layers = self._select_new("spike", list(times))
        if not layers:
            return None
        worst = max(layers, key=lambda name: times[name])
        return (
            f"{self._describe(layers, step)}: the update over the weight is {times[worst]:.0f} times its running "
            f"median (in {worst}). If the loss jumps as well, lower lr or clip gradients by norm: "
            f"{self.clipping.advice}"
        )

    def _check_skipped(self, step: int) -> str | None:
        count = self.tracker.skipped_by_optimizer
        if count == 0 or not self._select_new("skipped", [self.tracker.name]):
            return None
        steps = "1 step was" if count == 1 else f"{count} steps were"
        return (
            f"{self.tracker.name}, step {step}: {steps} skipped so far, because a gradient was not finite. "
            "belief/skipped_steps counts on; Trainer(detect_anomaly=True) finds the operation"
        )

    def _check_missing(self) -> str | None:
        found = [name for name in self._asked if name in self.tracker.summary]
        if not self._asked or found or not self._select_new("missing", [self.tracker.name]):
            return None
        has = ", ".join(row.name for row in LAYER_STATISTICS if row.name in self.tracker.summary)
        return f"BeliefMonitor: {self.tracker.name} does not tell {', '.join(self._asked)}. It has: {has}"

    def _select_lasting(self, kind: str, layers: list[str]) -> list[str]:
        """Return the layers that were found so several times in a row and were not warned of."""
        found = set(layers)
        for name in self.tracker.layers:
            self._times_in_a_row[kind, name] = self._times_in_a_row.get((kind, name), 0) + 1 if name in found else 0
        return self._select_new(kind, [name for name in layers if self._times_in_a_row[kind, name] >= TIMES_IN_A_ROW])

    def _select_new(self, kind: str, layers: list[str]) -> list[str]:
        """Return the layers not yet warned of, and remember that they are now."""
        fresh = [name for name in layers if (kind, name) not in self._warned]
        self._warned |= {(kind, name) for name in fresh}
        return fresh

    def _describe(self, layers: list[str], step: int) -> str:
        named = ", ".join(layers[:3])
        more = f" and {len(layers) - 3} more layers" if len(layers) > 3 else ""
        return f"{self.tracker.name}, step {step}: {named}{more}"

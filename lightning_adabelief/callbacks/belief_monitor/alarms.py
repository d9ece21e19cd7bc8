"""What BeliefMonitor warns of: which layer, what is wrong with it, and what to do."""

from __future__ import annotations

from collections import defaultdict, deque
from math import isfinite
from statistics import median

from lightning_adabelief.callbacks.belief_monitor.tracker import WatchedOptimizer

EPS_SHARE = 0.5
"""Above this share of eps in s_t, eps and not belief sets the step."""

GAIN = 10.0
"""Times Adam's step: gradients reach it only by staying the same for hundreds of steps."""

SPIKE = 10.0
"""Times the running median of a layer's update over weight, and of its update."""

MEMORY = 20
"""Measurements that the running median looks back on; it speaks from the tenth on."""

LASTING = 3
"""Measurements in a row in which a layer must be found eps-bound, exploding or dead."""


class Alarms:
    """Finds what is worth a warning in an optimizer's latest measurement; says it once a layer and kind.

    Args:
        watched: The optimizer.
        clips_by_value: Whether the Trainer clips gradients by value, which explains much.
    """

    def __init__(self, watched: WatchedOptimizer, clips_by_value: bool) -> None:
        self.watched = watched
        self.clips_by_value = clips_by_value
        self._said: set[tuple[str, str]] = set()
        self._history: dict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=MEMORY))
        self._times: dict[tuple[str, str], int] = {}

    def check(self, step: int) -> list[str]:
        """Look at the layers as last measured.

        Args:
            step: Where the logs stand.

        Returns:
            The warnings to give, one a kind, each of layers not yet warned of.
        """
        found = [self._nothing_but_eps(step), self._exploding(step)] if self.watched.is_adabelief else []
        return [text for text in [*found, self._dead(step), self._spike(step)] if text]

    def nonfinite(self, first: tuple[str, int] | None) -> list[str]:
        """Look at the first gradient that was not finite.

        Args:
            first: Its layer, and the optimizer's step.

        Returns:
            The warning to give, if there is one not yet given.
        """
        if first is None or not self._fresh("nonfinite", [self.watched.name]):
            return []
        return [
            f"{self.watched.name}: the gradient of {first[0]} was not finite at step {first[1]}, and the step was "
            "taken. From there the optimizer's state is not finite either: go back to an earlier checkpoint. "
            "Trainer(detect_anomaly=True) finds the operation; a lower lr, warmup or gradient_clip_val may prevent it"
        ]

    def _nothing_but_eps(self, step: int) -> str | None:
        # Where there is no gradient s_t is all eps, whatever eps is: of the other weights' share
        negligible = self.watched.negligible()
        shares = {
            name: 1 - (1 - layer["eps_share"]) / (1 - layer["silent_share"])
            for name, layer in self.watched.layers.items()
            if layer["silent_share"] < 1 and name not in negligible
        }
        layers = self._lasting("eps", [name for name, share in shares.items() if share > EPS_SHARE])
        if not layers:
            return None
        worst = max(layers, key=lambda name: shares[name])
        share, eps = 100 * shares[worst], self.watched.layers[worst]["eps"]
        return (
            f"{self._where(layers, step)}: runs as SGD with momentum, for up to {share:.0f} % of s_t is accumulated "
            f"eps, not belief. Lower eps (it is {eps:g}) to let AdaBelief adapt"
        )

    def _exploding(self, step: int) -> str | None:
        gains = {name: layer["step_gain_over_adam"] for name, layer in self.watched.layers.items()}
        layers = self._lasting("gain", [name for name, gain in gains.items() if gain > GAIN])
        if not layers:
            return None
        cause = (
            "gradients clipped by value stay at the threshold. Clip by norm: gradient_clip_algorithm='norm'"
            if self.clips_by_value
            else "the gradient hardly changes (clipped by value, or the same batch again and again?). Clip by norm, "
            "or bound the step by amsgrad=True or a larger eps"
        )
        times = f"{max(gains[name] for name in layers):.0f} times Adam's"
        return f"{self._where(layers, step)}: s_t is near 0 and the step up to {times}, for {cause}"

    def _dead(self, step: int) -> str | None:
        layers = self._lasting("dead", [name for name, layer in self.watched.layers.items() if layer["grad_norm"] == 0])
        if not layers:
            return None
        return (
            f"{self._where(layers, step)}: the gradient is 0, each of the last {LASTING} times measured; s_t decays to "
            "0 and the effective step size grows. Freeze the layer (requires_grad_(False)), or look for what cuts it "
            "off, such as units that never fire"
        )

    def _spike(self, step: int) -> str | None:
        times = {}
        negligible = self.watched.negligible()
        for name, layer in self.watched.layers.items():
            if name in negligible:
                continue
            # both, for a single weight on its way through 0 is small beside any update
            now, history = (layer["update_to_weight"], layer["update_norm"]), self._history[name]
            if len(history) >= MEMORY // 2:
                medians = [median(values) for values in zip(*history, strict=True)]
                if all(value > SPIKE * usual > 0 for value, usual in zip(now, medians, strict=True)):
                    times[name] = now[0] / medians[0]
            if all(map(isfinite, now)):
                history.append(now)
        layers = self._fresh("spike", list(times))
        if not layers:
            return None
        worst = max(layers, key=lambda name: times[name])
        return (
            f"{self._where(layers, step)}: the update over the weight is {times[worst]:.0f} times its running median "
            f"(in {worst}). If the loss jumps as well, lower lr or clip gradients by norm"
        )

    def _lasting(self, kind: str, layers: list[str]) -> list[str]:
        """Those of the layers that were so the last times as well, if they were not yet named."""
        for name in self.watched.layers:
            self._times[kind, name] = self._times.get((kind, name), 0) + 1 if name in layers else 0
        return self._fresh(kind, [name for name in layers if self._times[kind, name] >= LASTING])

    def _fresh(self, kind: str, layers: list[str]) -> list[str]:
        """Those of the layers that a warning of this kind has not named, and does now."""
        fresh = [name for name in layers if (kind, name) not in self._said]
        self._said |= {(kind, name) for name in fresh}
        return fresh

    def _where(self, layers: list[str], step: int) -> str:
        named = ", ".join(layers[:3])
        more = f" and {len(layers) - 3} more layers" if len(layers) > 3 else ""
        return f"{self.watched.name}, step {step}: {named}{more}"

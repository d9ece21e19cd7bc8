"""The choice of layers: which parameters make one up, and which are measured and logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker
from lightning_adabelief.lightning_tree import MisconfigurationException
from lightning_adabelief.suggest import suggest


class LayerChoice:
    """BeliefMonitor's ``include``, ``exclude``, ``top_k`` and ``depth``.

    Raises:
        ValueError: If an argument is not of this form; the message names the value.
    """

    def __init__(
        self,
        include: str | Sequence[str] | None,
        exclude: str | Sequence[str] | None,
        top_k: int,
        depth: int | None,
    ) -> None:
        if top_k < 0:
            raise ValueError(f"Invalid top_k: {top_k}. Give 0 or more; include='*' logs every layer")
        if depth is not None and depth < 1:
            raise ValueError(f"Invalid depth: {depth}. Give 1 or more, or None for each parameter by itself")
        self.include = as_tuple(include)
        self.exclude = as_tuple(exclude)
        self.top_k = top_k
        self.depth = depth

    def layer_of(self, parameter: str) -> str:
        """Return the layer that a parameter of this name belongs to."""
        return parameter if self.depth is None else ".".join(parameter.split(".")[: self.depth])

    def measures(self, parameter: str) -> bool:
        """Return True if neither a parameter of this name nor its layer is excluded."""
        return not (_matches(parameter, self.exclude) or _matches(self.layer_of(parameter), self.exclude))

    def includes(self, layer: str) -> bool:
        """Return True if ``include`` has a layer of this name, or is not given."""
        return _matches(layer, self.include or ("*",))

    def select(self, tracker: OptimizerTracker) -> list[str]:
        """Return the layers of an optimizer to log: all those included, or the most notable."""
        if self.include:
            return [name for name in tracker.layers if self.includes(name)]
        return sorted(tracker.layers, key=lambda name: -tracker.notability[name])[: self.top_k]

    def check(self, of_optimizers: Sequence[Sequence[str]], frozen: Sequence[str]) -> None:
        """Check that there is what was chosen.

        Args:
            of_optimizers: The names of each optimizer's parameters.
            frozen: The names of the module's other parameters, which may be unfrozen later.

        Raises:
            MisconfigurationException: If a glob matches nothing, no layer is left, or ``depth`` puts
                parameters of several optimizers together.
        """
        parameters = [name for names in of_optimizers for name in names]
        owners = Counter(layer for names in of_optimizers for layer in set(map(self.layer_of, names)))
        for layer, count in owners.items():
            if count > 1:
                raise MisconfigurationException(
                    f"BeliefMonitor(depth={self.depth}) puts parameters of several optimizers into one layer, "
                    f"{layer!r}. Give a larger depth"
                )
        layers = list(dict.fromkeys(map(self.layer_of, parameters)))
        later = [*frozen, *map(self.layer_of, frozen)]
        candidates = {"include": layers, "exclude": list(dict.fromkeys([*layers, *parameters]))}
        for option, names in candidates.items():
            for glob in getattr(self, option):
                if not any(fnmatchcase(name, glob) for name in [*names, *later]):
                    raise MisconfigurationException(
                        f"BeliefMonitor({option}={glob!r}) matches no layer. {suggest(glob, names)}"
                    )
        if not frozen and not any(self.includes(self.layer_of(name)) for name in parameters if self.measures(name)):
            raise MisconfigurationException(
                f"BeliefMonitor(include={self.include}, exclude={self.exclude}) leaves no layer to log. Exclude less"
            )


def as_tuple(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one name, several or none as a tuple."""
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)

"""The choice of layers: which parameters make one up, and which are measured and logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

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
        if not is_whole_number(top_k) or top_k < 0:
            raise ValueError(f"Invalid top_k: {top_k}. Give a whole number, 0 or more; include='*' logs every layer")
        if depth is not None and (not is_whole_number(depth) or depth < 1):
            raise ValueError(
                f"Invalid depth: {depth}. Give a whole number, 1 or more, or None for each parameter by itself"
            )
        self.include = as_names("include", include)
        self.exclude = as_names("exclude", exclude)
        if include is not None and not self.include:
            raise ValueError(f"Invalid include: {include!r}. Give a glob, '*' for every layer, or None for the notable")
        self.top_k = top_k
        self.depth = depth
        self._names_of: dict[str, set[str]] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The four options, by name."""
        return {name: getattr(self, name) for name in ("include", "exclude", "top_k", "depth")}

    def set_other_names(self, names: Iterable[Sequence[str]]) -> None:
        """Let globs match the other names of tied weights, too.

        Args:
            names: The names of each parameter of the module, the one that is logged first.
        """
        self._names_of = {}
        for first, *others in names:
            self._names_of.setdefault(first, set()).update(others)
            self._names_of.setdefault(self.layer_of(first), set()).update(map(self.layer_of, others))

    def layer_of(self, parameter: str) -> str:
        """Return the layer that a parameter of this name belongs to."""
        return parameter if self.depth is None else ".".join(parameter.split(".")[: self.depth])

    def measures(self, parameter: str) -> bool:
        """Return True if neither a parameter of this name nor its layer is excluded."""
        return not (self._matches(parameter, self.exclude) or self._matches(self.layer_of(parameter), self.exclude))

    def includes(self, layer: str) -> bool:
        """Return True if ``include`` has a layer of this name, or is not given."""
        return not self.include or self._matches(layer, self.include)

    def select(self, tracker: OptimizerTracker) -> list[str]:
        """Return the layers of an optimizer to log: all those included, or the most notable, these first.

        A layer that was chosen before stays until it is no longer among the 2 ``top_k`` most notable, so
        that its curve goes on.
        """
        if self.include:
            return [name for name in tracker.layers if self.includes(name)]
        ranking = sorted(tracker.layers, key=lambda name: -tracker.notability[name])
        staying = [name for name in ranking[: 2 * self.top_k] if name in tracker.shown][: self.top_k]
        coming = [name for name in ranking if name not in staying][: self.top_k - len(staying)]
        tracker.shown = {*staying, *coming}
        return [name for name in ranking if name in tracker.shown]

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
            if count > 1 and self.depth is not None:
                raise MisconfigurationException(
                    f"BeliefMonitor(depth={self.depth}) puts parameters of several optimizers into one layer, "
                    f"{layer!r}. Give a larger depth"
                )
        tied = [other for name in parameters for other in sorted(self._names_of.get(name, ()))]
        layers = list(dict.fromkeys(map(self.layer_of, [*parameters, *tied])))
        later = [*frozen, *map(self.layer_of, frozen)]
        candidates = {"include": layers, "exclude": list(dict.fromkeys([*layers, *parameters, *tied]))}
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

    def _matches(self, name: str, globs: Sequence[str]) -> bool:
        """True if a glob matches a name, of a parameter or layer, or another name that it has."""
        names = [name, *self._names_of.get(name, ())] if globs else []
        return any(fnmatchcase(each, glob) for each in names for glob in globs)


def as_names(option: str, names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one name, several or none as a tuple.

    Args:
        option: The option that they were given for, for the error.
        names: The names.

    Raises:
        ValueError: If they are something else.
    """
    if names is None:
        return ()
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"Invalid {option}: {names!r}. Give a name, or a list of names")
    return tuple(names)


def is_whole_number(value: object) -> bool:
    """Return True for an int that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)

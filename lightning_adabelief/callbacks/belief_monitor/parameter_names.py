"""The names that parameters have in the logs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker
from lightning_adabelief.optim.names import parameter_names as names_in_module


class ParameterNames:
    """Names each parameter as the module does, and one that is not the module's as its optimizer does.

    Args:
        trackers: The optimizers.
        module: The LightningModule.
    """

    def __init__(self, trackers: Sequence[OptimizerTracker], module: nn.Module) -> None:
        self._trackers = trackers
        self._module = module
        self._names: dict[Tensor, str] = {}

    def find(self) -> dict[Tensor, str]:
        """Return the names, which are looked up again only when an optimizer has new parameters.

        Returns:
            From each parameter of the optimizers, those of the module first and in its order, to its plain name; the
            first, of a tied one.
        """
        if not all(param in self._names for tracker in self._trackers for param in tracker.parameters()):
            self._names = self._look_up()
        return self._names

    def find_frozen(self) -> list[str]:
        """Return the names of the module's parameters that no optimizer has."""
        optimized = self.find()
        return [name for param, (name, *_) in names_in_module(self._module).items() if param not in optimized]

    def _look_up(self) -> dict[Tensor, str]:
        own_names: dict[Tensor, str] = {}
        for tracker in self._trackers:
            for number, group in enumerate(tracker.optimizer.param_groups, start=1):
                for position, param in enumerate(group["params"]):
                    own = group["param_names"][position] if "param_names" in group else f"pg{number}.{position}"
                    own_names[param] = f"{tracker.name}.{own}"
        in_module = {param: name for param, (name, *_) in names_in_module(self._module).items() if param in own_names}
        return in_module | {param: name for param, name in own_names.items() if param not in in_module}

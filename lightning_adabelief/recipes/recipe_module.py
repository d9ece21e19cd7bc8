"""The base of the recipes' modules: a LightningModule that can be made again from its checkpoint."""

from __future__ import annotations

import inspect
from argparse import ArgumentError
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_adabelief.configure.plain_callables import INSTANTIATOR_KEY, describe_callable
from lightning_adabelief.lightning_tree import LightningModule, given_hyperparameters

if TYPE_CHECKING:
    from typing_extensions import Self

INSTANTIATOR = "pytorch_lightning.cli.instantiate_module"
"""The function that makes a module from a checkpoint's hyperparameters; both of Lightning's class trees trust it."""


class RecipeModule(LightningModule):
    """A LightningModule whose checkpoints hold its hyperparameters as plain data; loggers are not given them.

    For a module that Lightning's CLI makes, they are its part of the config, with its networks. For one that is made
    in Python, they are its arguments as far as they are plain data, or optimizers or schedulers that can be described
    as in a config. A subclass that calls ``save_hyperparameters`` decides for itself what its checkpoints hold.
    """

    _kept_hyperparameters: dict[str, Any] | None = None

    def keep_hyperparameters(self, arguments: Mapping[str, Any]) -> None:
        """Keep the hyperparameters for checkpoints; the constructor calls it first.

        Args:
            arguments: The constructor's ``locals()``.
        """
        given = given_hyperparameters.get()  # those of Lightning's CLI, while it makes a module
        if given is not None:
            self._kept_hyperparameters = {**given, INSTANTIATOR_KEY: INSTANTIATOR}
        elif type(self).__init__ is arguments["__class__"].__init__:  # a subclass's own has other arguments
            described = {name: describe_callable(value) or value for name, value in arguments.items()}
            plain = {name: value for name, value in described.items() if _is_plain(value)}
            self._kept_hyperparameters = {**plain, INSTANTIATOR_KEY: INSTANTIATOR}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the hyperparameters, unless a subclass has saved its own."""
        if self._kept_hyperparameters is not None:
            checkpoint.setdefault(self.CHECKPOINT_HYPER_PARAMS_KEY, dict(self._kept_hyperparameters))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Make the module again from a checkpoint, as Lightning does.

        A checkpoint of Lightning's CLI, which the command ``adabelief`` runs, tells the networks. One of a module
        that was made in Python does not: give them by name.

        Args:
            checkpoint_path: The file, its address, or an open file.
            *args: As Lightning's own.
            **kwargs: As Lightning's own; also arguments of the module, which go before the checkpoint's.

        Raises:
            ValueError: If the checkpoint does not tell a network, and it is not given.
        """
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except (TypeError, ArgumentError) as error:
            parameters = inspect.signature(cls).parameters.values()
            needed = [of.name for of in parameters if of.default is of.empty and of.name not in kwargs]
            missing = [name for name in needed if name in str(error)]
            if not missing or "required" not in str(error):
                raise
            names = ", ".join(f"{name}=..." for name in missing)
            raise ValueError(
                f"{checkpoint_path} does not tell the {' and the '.join(missing)}, for its module was made in Python "
                f"or by an earlier version. Give what was trained: {cls.__name__}.load_from_checkpoint(PATH, {names})"
            ) from error


def _is_plain(value: Any) -> bool:
    """Return True for plain data that names no class which only the running program has."""
    if isinstance(value, dict):
        class_path = str(value.get("class_path", ""))
        if class_path.startswith("__main__.") or "<locals>" in class_path:
            return False
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)

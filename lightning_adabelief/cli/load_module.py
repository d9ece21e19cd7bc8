"""A trained module, made from a config and a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_module(checkpoint: Path, model: dict[str, Any], source: str) -> Any:
    """Make a config's module on the CPU, and load a checkpoint's weights into it.

    Args:
        checkpoint: The file.
        model: The config's ``model``: ``class_path`` and ``init_args``.
        source: The config's path, for messages.

    Returns:
        The module, in evaluation mode.

    Raises:
        CheckpointError: If the checkpoint can't be read, or is of another network.
        UsageError: If the module can't be made.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    from lightning_adabelief.checkpoint_file import CheckpointError, explain_other_network, read_checkpoint
    from lightning_adabelief.cli.users_modules import import_users_modules
    from lightning_adabelief.config_file import UsageError

    import_users_modules(model)  # they decide which Lightning is used
    from lightning_adabelief.lightning_tree import LightningModule

    content = read_checkpoint(checkpoint)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    try:
        module = parser.instantiate_classes(parser.parse_object({"model": model})).model
    except ArgumentError as error:
        raise UsageError(f"The model of {source} can't be built: {error}") from error
    module.configure_model()
    module.on_load_checkpoint(content)
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} {explain_other_network(str(error))}") from error
    return module.eval()

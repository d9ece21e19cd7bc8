"""The config of a checkpoint's run: the file beside the checkpoint, or the model among its hyperparameters."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lightning_adabelief.cli.class_source import PACKAGES
from lightning_adabelief.cli.signals import is_first_rank
from lightning_adabelief.cli.users_modules import list_class_paths
from lightning_adabelief.config_file import UsageError, read_config
from lightning_adabelief.recipes.catalog import find_config
from lightning_adabelief.settings import Settings, read_settings

CONFIG_NAME = "config.yaml"

CLASSIFIER = "lightning_adabelief.recipes.image_classification.ImageClassifier"
FOLDER_OF_IMAGES = "lightning_adabelief.recipes.image_classification.ImageFolderDataModule"
"""The data of a classifier whose checkpoint is all there is."""


def add_config(settings: Settings) -> Settings:
    """Take the config of the checkpoint's run where a command line has no config and no model.

    Args:
        settings: A command line and its configs.

    Returns:
        The settings with that config; the same if nothing is missing, or there is no checkpoint.

    Raises:
        UsageError: If there is no config beside the checkpoint, and it does not tell its networks.
    """
    given = settings.tree.get("ckpt_path")
    is_whole = settings.configs or _names_class(settings.tree.get("model"))
    if is_whole or not isinstance(given, str) or not Path(given).is_file():
        return settings
    command, *options = settings.typed_words
    path = find_config_beside(Path(given))
    if path is not None:
        words, source = [f"--config={path}", *_leave_runs_folder(command, path)], str(path)
    else:
        model = read_model(Path(given))
        words, source = [f"--model={json.dumps(model)}"], f"the model that is in {given}"
        if model["class_path"] == CLASSIFIER and not _names_class(settings.tree.get("data")):
            words.append(f"--data={FOLDER_OF_IMAGES}")
    if is_first_rank():
        print(f"Without --config, that of the checkpoint's run is taken: {source}", file=sys.stderr)
    return read_settings([command, *words, *options])


def _names_class(node: Any) -> bool:
    """Return True if a part of the settings says which class it is, beside options of it."""
    return isinstance(node, str) or (isinstance(node, dict) and "class_path" in node)


def _leave_runs_folder(command: str, config: Path) -> list[str]:
    """Return the option by which an evaluation does not log into the folder of the training, if a config names it."""
    logger = (read_config(config).get("trainer") or {}).get("logger")
    is_named = isinstance(logger, dict) and (logger.get("init_args") or {}).get("version") is not None
    return ["--trainer.logger.init_args.version=null"] if is_named and command != "fit" else []


def find_config_beside(checkpoint: Path) -> Path | None:
    """Return the config that was saved with a checkpoint's run: beside it, or in the folder above; None without."""
    for folder in checkpoint.absolute().parents[:2]:
        path = folder / CONFIG_NAME
        if path.is_file():
            return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return None


def find_model(checkpoint: Path, given: str | None) -> tuple[Any, Path]:
    """Find the model that a checkpoint's weights belong to.

    Args:
        checkpoint: The file.
        given: A config or a recipe's name that the user has given, if any; otherwise the run's config is taken, or
            the checkpoint's hyperparameters.

    Returns:
        ``model`` as in a config, and the file that it is from.

    Raises:
        CheckpointError: As :func:`read_model`.
        UsageError: As :func:`read_model`, or if the config can't be read.
    """
    path = find_config_beside(checkpoint) if given is None else find_config(given)
    if path is None:
        return read_model(checkpoint), checkpoint
    return read_config(path).get("model"), path


def read_model(checkpoint: Path) -> dict[str, Any]:
    """Read the model of a checkpoint that a config's run has left, from its hyperparameters.

    Args:
        checkpoint: The file.

    Returns:
        The model as in a config: ``class_path`` and ``init_args``.

    Raises:
        CheckpointError: If the file can't be read.
        UsageError: If it does not tell its model, or names classes of other than the known packages: a file from
            elsewhere must not decide which code is imported.
    """
    from lightning_adabelief.checkpoint_file import read_checkpoint

    arguments = dict(read_checkpoint(checkpoint).get("hyper_parameters", {}))
    class_path = arguments.pop("_class_path", None)
    arguments.pop("_instantiator", None)
    if class_path is None:
        raise UsageError(
            f"{checkpoint} does not tell its networks, and has no {CONFIG_NAME} beside it or in the folder above. "
            "Give --config the one that it was trained with"
        )
    model = {"class_path": class_path, "init_args": arguments}
    for path in list_class_paths(model):
        if path.partition(".")[0] not in PACKAGES:
            raise UsageError(
                f"{checkpoint} names {path}, which is imported only if a config says so. Give --config the one that it "
                "was trained with"
            )
    return model

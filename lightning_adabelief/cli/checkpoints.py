"""The checkpoint that ``test``, ``validate`` and ``predict`` need, and the newest one that would fit."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_adabelief.config_file import UsageError, read_config
from lightning_adabelief.settings import Settings

EVALUATING_COMMANDS = ("validate", "test", "predict")


class MissingCheckpointError(ValueError):
    """The error of a command that would score random weights."""


def require_checkpoint(settings: Settings) -> None:
    """Refuse to evaluate random weights.

    ``--ckpt_path null`` on the command line allows it: a network may bring pretrained weights.

    Args:
        settings: A command line and its configs.

    Raises:
        MissingCheckpointError: If the command needs a checkpoint and names none; its message names the newest
            one that would fit.
    """
    given = settings.tree.get("ckpt_path")
    if settings.command not in EVALUATING_COMMANDS or (given is None and "ckpt_path" in settings.typed):
        return
    if given in ("best", "last"):
        problem = f"--ckpt_path {given} means a run of the same process, and this one has not trained"
    elif given is None:
        problem = f"Without --ckpt_path, 'adabelief {settings.command}' would run with random weights"
    else:
        return
    checkpoint = find_newest(settings.tree)
    if checkpoint is not None:
        written = datetime.fromtimestamp(checkpoint.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        path = shlex.quote(str(checkpoint))
        advice = f"The newest checkpoint of this config was written at {written}. Give\n  --ckpt_path {path}"
    else:
        places = " and no ".join(
            dict.fromkeys(f"{folder}/{pattern}" for folder, pattern in _list_places(settings.tree))
        )
        config = shlex.quote(next(reversed(settings.configs), "CONFIG"))
        advice = f"There is no {places} of this network. Train first:\n  adabelief fit --config {config}"
    raise MissingCheckpointError(
        f"{problem}. {advice}\n(--ckpt_path null keeps the weights that the network is built with)"
    )


def find_newest(tree: dict[str, Any]) -> Path | None:
    """Find the newest run whose network is a config's, and its best checkpoint.

    Args:
        tree: The config.

    Returns:
        ``best*.ckpt`` where the run has one, otherwise its newest file; None if no run fits.
    """
    runs: dict[Path, list[Path]] = {}
    for folder, pattern in _list_places(tree):
        for path in folder.glob(pattern):
            if zipfile.is_zipfile(path):  # as torch.save writes them: half a file is none
                runs.setdefault(path.parent, []).append(path)
    newest_first = sorted(runs.values(), key=lambda paths: max(map(_read_time, paths)), reverse=True)
    for paths in newest_first:
        if _is_of_same_network(paths[0], tree):
            return max(paths, key=lambda path: (path.name.startswith("best"), _read_time(path)))
    return None


def _list_places(tree: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield folders and patterns of the files in them: where Lightning puts a run's checkpoints."""
    trainer = tree.get("trainer") or {}
    root = trainer.get("default_root_dir") or "."
    for callback in _list_items(trainer.get("callbacks")):
        dirpath = _get_argument(callback, "dirpath")
        if dirpath:
            yield Path(dirpath), "*.ckpt"
    loggers = trainer.get("logger")
    if loggers is False:
        yield Path(root), "checkpoints/*.ckpt"
        return
    for logger in _list_items(loggers) or [{}]:
        save_dir = _get_argument(logger, "save_dir") or root
        # W&B's runs are in a folder of their project's name, the others' in one of the logger's.
        is_wandb = _get_class_path(logger).endswith("WandbLogger")
        name = _get_argument(logger, "project" if is_wandb else "name")
        # A name that is left out, or made by a service, can be any folder.
        yield Path(save_dir), f"{name or '*'}/*/checkpoints/*.ckpt"


def _is_of_same_network(checkpoint: Path, tree: dict[str, Any]) -> bool:
    """Return False if the config saved with a run names other classes or sizes than this one."""
    for folder in checkpoint.parents[:2]:
        if (folder / "config.yaml").is_file():
            try:
                return _agrees(tree.get("model"), read_config(folder / "config.yaml").get("model"))
            except (OSError, UsageError):
                return False
    return True  # nothing beside it tells: checkpoints in a folder of the user's choice


def _agrees(ours: Any, saved: Any) -> bool:
    """Return True if a saved model is of the same classes, and its parts are given the same arguments.

    How a model is trained may differ: arguments of its own, optimizers and learning-rate schedules.
    """
    if not isinstance(ours, dict) or not isinstance(saved, dict):
        return not ours or _get_class_path(ours) == _get_class_path(saved)
    if _get_class_path(ours) != _get_class_path(saved):
        return False
    ours, saved = ours.get("init_args") or {}, saved.get("init_args") or {}
    parts = [name for name, value in ours.items() if isinstance(value, dict) and "class_path" in value]
    networks = [name for name in parts if "optimizer" not in name and "scheduler" not in name]
    return all(_have_same_arguments(ours[name], saved.get(name)) for name in networks)


def _have_same_arguments(ours: dict[str, Any], saved: Any) -> bool:
    if not isinstance(saved, dict):
        return False
    return all(
        _have_same_arguments(value, saved.get(key)) if isinstance(value, dict) else saved.get(key) == value
        for key, value in ours.items()
    )


def _list_items(value: Any) -> list[Any]:
    if value is None or value is True:
        return []
    return value if isinstance(value, list) else [value]


def _get_class_path(node: Any) -> str:
    return str(node.get("class_path", "")) if isinstance(node, dict) else str(node)


def _get_argument(node: Any, name: str) -> Any:
    arguments = node.get("init_args") if isinstance(node, dict) else None
    return arguments.get(name) if isinstance(arguments, dict) else None


def _read_time(path: Path) -> float:
    return path.stat().st_mtime

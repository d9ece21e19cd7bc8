"""The config of a trial: the comparison's, with one optimizer, one seed, and a record in place of decorations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from lightning_adabelief.comparison.plan import Plan, list_callbacks
from lightning_adabelief.comparison.stages import REPORT
from lightning_adabelief.comparison.trial import Trial

CONFIG = "config.yaml"
OUTCOME = "outcome.json"

MOVED_LOGGERS = ("TensorBoardLogger", "CSVLogger")
"""Loggers that are kept and write into the trial's folder. Others, which may write elsewhere, become a CSVLogger."""

LEFT_OUT = (
    "BeliefMonitor",
    "DeviceStatsMonitor",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "Pictures",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
)
"""Callbacks of which a trial has no use, or one of its own."""


def write_config(plan: Plan, trial: Trial, folder: Path) -> Path:
    """Write the config that ``adabelief fit --config`` runs a trial by.

    Args:
        plan: The comparison's plan.
        trial: One of its trials.
        folder: The trial's folder, which is made if need be.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONFIG
    path.write_text(yaml.safe_dump(make_config(plan, trial, folder), sort_keys=False), encoding="utf-8")
    return path


def make_config(plan: Plan, trial: Trial, folder: Path) -> dict[str, Any]:
    """Make the config of a trial; see :func:`write_config`."""
    settings = copy.deepcopy(plan.settings)
    contender = plan.find_contender(trial.contender)
    for place, ratio in zip(plan.places, plan.lr_ratios, strict=True):
        init_args = {**contender.init_args, "lr": _round(trial.lr * ratio)}
        if contender.weight_decay_factor is not None:
            init_args["weight_decay"] = _round(trial.weight_decay * contender.weight_decay_factor)
        _set(settings, place, {"class_path": contender.class_path, "init_args": init_args})
    trainer = settings.get("trainer") or {}
    settings["seed_everything"] = trial.seed
    settings["trainer"] = {
        **trainer,
        "logger": _make_logger(trainer.get("logger"), folder),
        "default_root_dir": str(folder),
        "callbacks": _make_callbacks(plan, settings, contender.class_path, folder),
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": -1,  # all of the validation, for the metric of the untrained model
        # Tuning does not look at the test, nor the report at one that no metric is compared by
        **({} if trial.stage == REPORT and plan.test_metric else {"limit_test_batches": 0}),
    }
    settings.pop("ckpt_path", None)
    return settings


def _set(settings: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    node = settings
    for key in place[:-1]:
        if isinstance(node.get(key), str):  # a class path alone
            node[key] = {"class_path": node[key]}
        node = node.setdefault(key, {})
    node[place[-1]] = value


def _make_logger(logger: Any, folder: Path) -> Any:
    """Return the config's logger, moved into the folder; a CSVLogger in place of one that writes elsewhere."""
    if logger is False:
        return False
    if isinstance(logger, list):
        logger = logger[0] if logger else None
    node: Any = {"class_path": logger} if isinstance(logger, str) else logger
    is_moved = isinstance(node, dict) and str(node.get("class_path", "")).rpartition(".")[2] in MOVED_LOGGERS
    class_path = node["class_path"] if is_moved else "CSVLogger"
    arguments = (node.get("init_args") or {}) if is_moved else {}
    # Without a version, a run that is repeated by hand has a folder of its own.
    place = {"save_dir": str(folder), "name": "", "version": None}
    return {"class_path": class_path, "init_args": {**arguments, **place}}


def _make_callbacks(plan: Plan, settings: dict[str, Any], optimizer: str, folder: Path) -> list[Any]:
    """Return the config's callbacks without decorations, and those of a trial."""
    callbacks = (settings.get("trainer") or {}).get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    kept = [
        callback
        for callback, (name, _) in zip(callbacks, list_callbacks(settings), strict=True)
        if name not in LEFT_OUT
    ]
    checkpoint = {"monitor": plan.metric, "mode": plan.mode, "filename": "best", "save_weights_only": True}
    record = {"path": str(folder / OUTCOME), "metric": plan.metric, "mode": plan.mode, "optimizers": [optimizer]}
    added: list[Any] = [
        {"class_path": "ModelCheckpoint", "init_args": checkpoint},
        {"class_path": "lightning_adabelief.comparison.record.TrialRecord", "init_args": record},
    ]
    if plan.warmup:
        warmup = {"class_path": "lightning_adabelief.comparison.warmup.Warmup", "init_args": {"warmup": plan.warmup}}
        added.append(warmup)
    return [*kept, *added]


def _round(value: float) -> float:
    return float(f"{value:.6g}")

"""``adabelief fit``, ``validate``, ``test`` and ``predict``: the Lightning CLI over the recipes."""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace

from lightning_adabelief.callbacks import BeliefMonitor, ResumeReport
from lightning_adabelief.callbacks.resume_report import say_difference
from lightning_adabelief.cli.closing import best_checkpoint, print_closing
from lightning_adabelief.cli.explain import explain
from lightning_adabelief.lightning_tree import (
    Callback,
    LightningCLI,
    LightningDataModule,
    LightningModule,
    ProgressBar,
    RichProgressBar,
    SaveConfigCallback,
    Trainer,
    is_overridden,
    rank_zero_info,
    tree,
)
from lightning_adabelief.recipes.catalog import find_config


def run(words: list[str]) -> None:
    """Run one of the Lightning CLI's commands.

    Args:
        words: The command, then its options; a recipe's name may stand for a config.

    Raises:
        ValueError: If a config or an option is not what it should be.
    """
    _quiet()
    words = _resolve_configs(words)
    try:
        AdaBeliefCLI(words)
    except argparse.ArgumentError as error:
        raise ValueError(f"{explain(str(error))}\n'adabelief {words[0]} --help' lists the options") from error
    except ValueError as error:
        if "Given value" not in str(error):  # not the parser's report on what an argument's class raised
            raise
        raise ValueError(explain(str(error))) from error
    except pickle.UnpicklingError as error:
        raise ValueError("The file given as --ckpt_path is no checkpoint of Lightning") from error
    except RuntimeError as error:
        if "Error(s) in loading state_dict" not in str(error):
            raise
        raise ValueError(f"The checkpoint is of another network than the config's. {error}") from error


class AdaBeliefCLI(LightningCLI):
    """The Lightning CLI for any module and data; ``fit`` ends with a test and a closing table."""

    def __init__(self, words: list[str]) -> None:
        errors = {"exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=_SaveConfig,
            parser_kwargs={**errors, **{command: errors for command in self.subcommands()}},
            args=words,
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, with a Rich progress bar unless the config has another or none, and ResumeReport."""
        config = self._get(self.config_init, "trainer", default={})
        callbacks = config.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        ours: list[Callback] = [ResumeReport()]  # first, for BaseFinetuning restores groups itself
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            ours.append(_ProgressBar())
        kwargs["callbacks"] = [*ours, *callbacks]
        trainer = super().instantiate_trainer(**kwargs)
        self._take_tables(trainer.callbacks)  # type: ignore[attr-defined]
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Say where the checkpoint's hyperparameters take the place of the config's (Lightning 2.6 and newer)."""
        in_config = self._flat_model_config()
        super()._parse_ckpt_path()
        for key, value in self._flat_model_config().items():
            if in_config.get(key) != value:
                rank_zero_info(say_difference(key, value, in_config.get(key)))

    def _flat_model_config(self) -> dict[str, Any]:
        """The model's options by their names on the command line, without ``init_args``."""
        model = self.config[self.config.subcommand].get("model") if self.config.get("subcommand") else None
        flat = Namespace(model=model).as_flat() if model else Namespace()
        return {re.sub(r"\b(init_args|dict_kwargs)\.", "", key): value for key, value in vars(flat).items()}

    def fit(self, **kwargs: Any) -> None:
        """Train; an interrupted training closes with what there is."""
        try:
            self.trainer.fit(**kwargs)
        except SystemExit:
            if self.trainer.interrupted and self.trainer.is_global_zero:
                print_closing(self.trainer, {}, self._monitors)
            raise

    def after_fit(self) -> None:
        """Test the best checkpoint, where there is something to test; close with what there is to know."""
        scores: dict[str, float] = {}
        data = self.datamodule or self.model
        try:
            if is_overridden("test_step", self.model) and is_overridden("test_dataloader", data):
                checkpoint = best_checkpoint(self.trainer) or None
                for of_loader in self.trainer.test(self.model, self.datamodule, checkpoint, verbose=False):
                    scores |= of_loader
        finally:
            if self.trainer.is_global_zero:
                print_closing(self.trainer, scores, self._monitors)

    def _take_tables(self, callbacks: list[Callback]) -> None:
        """Let the closing show what the monitors would have printed at the end of the training."""
        self._monitors = [c for c in callbacks if isinstance(c, BeliefMonitor) and c.closing_table]
        for monitor in self._monitors:
            monitor.closing_table = False

    def predict(self, **kwargs: Any) -> None:
        """Predict, and save the list of batches' predictions as ``predictions.pt``."""
        predictions = self.trainer.predict(**kwargs)
        if self.trainer.is_global_zero:
            folder = Path(self.trainer.log_dir or ".")
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(predictions, folder / "predictions.pt")
            print(f"Predictions: {folder / 'predictions.pt'} (torch.load gives a list, a tensor a batch)")


class _ProgressBar(RichProgressBar):
    """Without the number of the run, which the closing table tells."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class _SaveConfig(SaveConfigCallback):
    """Save the config beside the logs; where nothing is logged, nowhere."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.loggers:
            return
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            raise ValueError(
                f"{trainer.log_dir} holds another run, and is left as it is. Give another "
                "--trainer.logger.init_args.version, or none, to number runs"
            ) from error


def _resolve_configs(words: list[str]) -> list[str]:
    """Put files in the place of the recipes that ``--config`` and ``-c`` name."""
    resolved = list(words)
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in ("--config", "-c"):
            continue
        if equals:
            resolved[i] = f"{option}={_checked(value)}"
        elif i + 1 < len(words):
            resolved[i + 1] = str(_checked(words[i + 1]))
    return resolved


def _checked(name_or_path: str) -> Path:
    path = find_config(name_or_path)
    compare = "Compare 'adabelief show digits-cnn'"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"The config {path} is no YAML, for it is no text: {error}. {compare}") from None
    except yaml.YAMLError as error:
        where = re.sub(r"\s+", " ", str(error))
        raise ValueError(f"The config {path} is no YAML: {where}. {compare}") from None
    if not isinstance(content, dict):
        raise ValueError(f"The config {path} holds {content!r:.80}, not keys such as model and trainer. {compare}")
    if not isinstance(content.get("trainer", {}), dict):
        raise ValueError(f"In the config {path}, trainer is {content['trainer']!r:.80}, not keys. {compare}")
    return path


def _quiet() -> None:
    """Leave out what is not about the user's run."""
    logging.getLogger(f"{tree()}.utilities.rank_zero").addFilter(lambda record: "Tip:" not in str(record.msg))
    for ours in (
        ".*LeafSpec.*",  # Lightning 2.6 calls what torch 2.15 deprecates
        ".*does not have many workers.*",  # the recipe has chosen
        "LightningCLI's args parameter.*",  # they are the command line, recipes' names resolved
    ):
        warnings.filterwarnings("ignore", message=ours)

"""The Lightning CLI, which ``adabelief fit``, ``validate``, ``test`` and ``predict`` run."""

from __future__ import annotations

import argparse
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

from lightning_adabelief.callbacks import ExactResume, ResumeReport
from lightning_adabelief.callbacks.belief_monitor.outputs.loggers import folder_of
from lightning_adabelief.checkpoint_file import CheckpointError, check_checkpoint, explain_other_network
from lightning_adabelief.checkpoint_io import AtomicCheckpointIO, save_whole
from lightning_adabelief.cli.check import OPTIMIZER_KEYS
from lightning_adabelief.cli.closing import best_checkpoint, make_command, print_closing
from lightning_adabelief.cli.continued_logs import LogLengths, continue_logs
from lightning_adabelief.cli.errors import (
    EarlyError,
    explain_early_error,
    explain_os_error,
    find_workers_error,
    is_from_users_code,
    is_mendable,
)
from lightning_adabelief.cli.explain import explain
from lightning_adabelief.cli.safeguards import (
    Safeguards,
    UsedFolderError,
    refuse_used_folder,
    silence_tensorboards_thread,
)
from lightning_adabelief.cli.signals import StoppedBySignal, handler
from lightning_adabelief.cli.stop_on_signal import StopOnSignal, is_stop
from lightning_adabelief.config_file import UsageError
from lightning_adabelief.files import find_free_path
from lightning_adabelief.lightning_tree import (
    Callback,
    LightningCLI,
    LightningDataModule,
    LightningModule,
    ProgressBar,
    RichProgressBar,
    SaveConfigCallback,
    TorchCheckpointIO,
    Trainer,
    is_overridden,
    tree,
)
from lightning_adabelief.settings import Settings


def run(settings: Settings) -> None:
    """Run one of the Lightning CLI's commands.

    Args:
        settings: A command line and its configs.

    Raises:
        UsageError: If the parser refuses the command line or a config.
        ValueError: If a class refuses its arguments, or the checkpoint does not fit.
    """
    _run(AdaBeliefCLI, settings)


def build(settings: Settings) -> None:
    """Build all that a command line names, and run nothing.

    Args:
        settings: As for :func:`run`.

    Raises:
        UsageError: As :func:`run` does.
        ValueError: As :func:`run` does.
    """
    _run(_BuildOnly, settings)


def _run(cli: type[AdaBeliefCLI], settings: Settings) -> None:
    """Run a CLI, with the errors of its parser and of Lightning in words of ours."""
    _silence_advice(settings.command)
    if not settings.asks_only:
        weights_only = settings.tree.get("weights_only") is not False
        check_checkpoint(settings.tree.get("ckpt_path"), settings.command, weights_only)
    try:
        with silence_tensorboards_thread():
            cli(settings)
    except Exception as error:
        explained = _explain_error(error, settings)
        if explained is None:
            raise
        raise explained from error


def _explain_error(error: Exception, settings: Settings) -> Exception | None:
    """Return an error in words of ours; None for one that says all, or that is the user's own."""
    text = str(error)
    of_worker = find_workers_error(error)
    if of_worker is not None:
        return of_worker
    if isinstance(error, argparse.ArgumentError):
        return UsageError(f"{explain(text)}\n'adabelief {settings.command} --help' lists the options")
    if isinstance(error, ValueError) and "Given value" in text:  # the parser's report on what a class raised
        return ValueError(explain(text))
    if isinstance(error, AttributeError) and "learning rate finder" in text:
        return ValueError(NO_RATE_TO_FIND)
    if isinstance(error, TypeError) and "`devices`" in text:
        given = settings.tree["trainer"].get("devices")
        return UsageError(
            f"{settings.say_place('trainer.devices')} is {given!r}. Give a number of devices, 1 or more, or auto"
        )
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in text:
        path = settings.tree.get("ckpt_path") or "The checkpoint"
        return CheckpointError(f"{path} {explain_other_network(text)}")
    if settings.has_trained or is_mendable(error) or is_from_users_code(error):
        return None
    return EarlyError(explain_early_error(error))


NO_RATE_TO_FIND = (
    "LearningRateFinder sets an attribute lr or learning_rate of the model, and this model has neither: its learning "
    "rate is its optimizer's. Leave LearningRateFinder out and compare a few, for example "
    "--model.optimizer.lr=1e-4 and --model.optimizer.lr=1e-2, or give a model of your own that has the attribute"
)


class AdaBeliefCLI(LightningCLI):
    """The Lightning CLI for any module and data; ``fit`` ends with a test and a closing table."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = StopOnSignal()
        errors = {"exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            # Keys that are not given are not in the parser: they would stand beside the optimizers of modules.
            auto_configure_optimizers=any(key in settings.tree for key in OPTIMIZER_KEYS),
            save_config_callback=_SaveConfig,
            parser_kwargs={**errors, **{command: errors for command in self.subcommands()}},
            args=settings.words,
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, with what resuming needs, and a Rich progress bar unless the config has another or none."""
        config = self._get(self.config_init, "trainer", default={})
        callbacks = config.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        # first, because BaseFinetuning restores groups itself, and others may draw random numbers
        ours: list[Callback] = [Safeguards(), ResumeReport(), LogLengths()]
        if not any(isinstance(c, ExactResume) for c in callbacks):
            ours.append(ExactResume())
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            ours.append(_ProgressBar())
        kwargs["callbacks"] = [*ours, *callbacks, self.stopping]
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one of the config's plugins
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Leave the config and the command line as they are.

        Lightning 2.6 and newer would put the checkpoint's hyperparameters in the place of what they say.
        """

    def fit(self, **kwargs: Any) -> None:
        """Train; after a signal, print where the run is.

        Raises:
            StoppedBySignal: If a signal, or a KeyboardInterrupt of another origin, has ended the training.
        """
        if kwargs.get("ckpt_path") and continue_logs(self.trainer, kwargs["ckpt_path"]):
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, _SaveConfig):
                    callback.overwrite = True
        else:
            refuse_used_folder(self.trainer)
        try:
            self.trainer.fit(**kwargs)
        except OSError as error:
            raise self._explain_failed_save(error) from error
        except (RuntimeError, SystemExit) as error:
            is_interrupt = isinstance(error, SystemExit) and self.trainer.interrupted
            if not is_stop(error) and not is_interrupt:
                raise
            if self.trainer.is_global_zero:
                print_closing(self.trainer, {})
            stop = error if isinstance(error, StoppedBySignal) else StoppedBySignal(handler.received or signal.SIGINT)
            stop.message += self._report_stop()
            raise stop from None
        finally:
            self.settings.has_trained = self.trainer.global_step > 0

    def _explain_failed_save(self, error: OSError) -> OSError:
        """Name, beside the checkpoint that could not be written, the one to go on from."""
        folder = Path(str(error.filename)).parent
        folders = [getattr(callback, "dirpath", None) for callback in self.trainer.checkpoint_callbacks]
        written = [path for path in folder.glob("*.ckpt") if path.is_file() and str(folder) in map(str, folders)]
        if not written:
            return error
        newest = max(written, key=lambda path: path.stat().st_mtime)
        command = make_command(self.settings.typed_words, newest)
        return OSError(f"{explain_os_error(error)}. {newest} is whole. Go on from it with\n  {command}")

    def _report_stop(self) -> str:
        """Return what a training that was stopped has left, and how to go on."""
        checkpoint = self.stopping.checkpoint
        if checkpoint is not None:
            command = make_command(self.settings.typed_words, checkpoint)
            return f" It has left {checkpoint}. Go on with\n  {command}"
        if self.stopping.problem is not None:
            return f" No checkpoint could be saved: {self.stopping.problem}"
        return " It has left no checkpoint of this moment"

    def after_fit(self) -> None:
        """Test the best checkpoint if model and data have a test, and print the scores and where the run is."""
        scores: dict[str, float] = {}
        data = self.datamodule or self.model
        try:
            if is_overridden("test_step", self.model) and is_overridden("test_dataloader", data):
                checkpoint = best_checkpoint(self.trainer) or None
                for of_loader in self.trainer.test(self.model, self.datamodule, checkpoint, verbose=False):
                    scores |= of_loader
        except StoppedBySignal as stop:
            command = make_command(self.settings.typed_words, Path(best_checkpoint(self.trainer)), "test")
            stop.message += f" The training had ended; test its checkpoint with\n  {command}"
            raise
        finally:
            if self.trainer.is_global_zero:
                print_closing(self.trainer, scores)

    def before_validate(self) -> None:
        """Leave the folder of another run as it is."""
        refuse_used_folder(self.trainer)

    before_test = before_predict = before_validate

    def predict(self, **kwargs: Any) -> None:
        """Predict; save a classifier's predictions as a table, others as the list of batches' ``predictions.pt``."""
        from lightning_adabelief.recipes.image_classification import ImageClassifier, PredictionsTable

        if isinstance(self.model, ImageClassifier) and not is_overridden("predict_step", self.model, ImageClassifier):
            self.trainer.callbacks.append(PredictionsTable())  # type: ignore[attr-defined]
            self.trainer.predict(**{**kwargs, "return_predictions": False})
            return
        predictions = self.trainer.predict(**kwargs)
        if self.trainer.is_global_zero:
            folder = folder_of(self.trainer.loggers) or Path(self.trainer.default_root_dir)
            path = find_free_path(folder / "predictions.pt")
            save_whole(predictions, path)
            print(f"Predictions: {path} (torch.load gives a list, an entry a batch)")


class _BuildOnly(AdaBeliefCLI):
    """The same up to the command itself, which does nothing."""

    def fit(self, **kwargs: Any) -> None:
        """Train nothing."""

    def after_fit(self) -> None:
        """Test nothing."""


class _ProgressBar(RichProgressBar):
    """A progress bar without the number of the run, which the closing table gives."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class _SaveConfig(SaveConfigCallback):
    """Save the config beside the logs, if there is a logger."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.loggers:
            return
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:  # of a logger whose folder is known only now
            raise UsedFolderError(trainer.log_dir) from error


def _silence_advice(command: str) -> None:
    """Silence the log messages and warnings that are not about the user's run."""
    if command != "fit":  # no checkpoint is saved, so none is saved elsewhere
        warnings.filterwarnings("ignore", message="The dirpath has changed")
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")  # of the training
    logging.getLogger(f"{tree()}.utilities.rank_zero").addFilter(lambda record: "Tip:" not in str(record.msg))
    for message in (
        ".*LeafSpec.*",  # Lightning 2.6 calls what torch 2.15 deprecates
        ".*does not have many workers.*",  # the recipe has chosen their number
        "LightningCLI's args parameter.*",  # we pass the command line itself, with recipes' names resolved
    ):
        warnings.filterwarnings("ignore", message=message)

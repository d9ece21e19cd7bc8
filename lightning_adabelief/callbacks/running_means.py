"""The means over an epoch that ``self.log(on_epoch=True)`` accumulates, kept for a run that goes on within it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from lightning_adabelief.lightning_tree import LightningModule, tree

_ResultCollection: Any = import_module(f"{tree()}.trainer.connectors.logger_connector.result")._ResultCollection

SUMS = ("value", "cumulated_batch_size")
"""The attributes in which Lightning accumulates a number that is logged."""


def collect_means(trainer: Any) -> dict[str, Any]:
    """Return what was accumulated since the epoch began, as tensors.

    These are the sums of numbers that are logged, and the states of torchmetrics' metrics, by the names of the
    module's attributes; after the last batch, the means instead.
    """
    loop = trainer.fit_loop.epoch_loop
    logged = {key: item for key, item in loop._results.items() if item.meta.on_epoch and not item.has_reset}
    if logged and loop._num_ready_batches_reached():
        return {
            "sums": {},
            "metrics": {},
            "means": {kind: dict(of) for kind, of in loop._results.metrics(False).items()},
        }
    return {
        "sums": {key: _select(vars(item), SUMS) for key, item in logged.items() if item.is_tensor},
        "metrics": {
            item.meta.metric_attribute: _select(vars(item.value), item.value._defaults)
            for item in logged.values()
            if not item.is_tensor and item.meta.metric_attribute is not None
        },
        "means": {},
    }


def restore_means(trainer: Any, module: LightningModule, saved: dict[str, Any]) -> None:
    """Let an epoch's means go on from what :func:`collect_means` returned."""
    modules = dict(module.named_modules())
    for name, state in saved["metrics"].items():
        metric = modules.get(name)
        if metric is not None:
            for key, value in state.items():
                setattr(metric, key, _copy(value, metric.device))
            metric._update_count = 1  # not 0, by which torchmetrics would warn of an empty metric
    trainer.fit_loop.epoch_loop._results = _ContinuedResults(saved["sums"], saved["means"])


class _ContinuedResults(_ResultCollection):
    """The values that a module logs in training, going on from those before a checkpoint."""

    def __init__(self, sums: dict[str, Any], means: dict[str, dict[str, Any]]) -> None:
        super().__init__(training=True)
        self._sums = sums
        self._means = means

    def __setitem__(self, key: str, item: Any) -> None:
        """Begin with the sums of the checkpoint where a number is logged for the first time."""
        super().__setitem__(key, item)
        for name, value in self._sums.pop(key, {}).items():
            setattr(item, name, value)

    def metrics(self, on_step: bool) -> dict[str, dict[str, Any]]:
        """Return what is to be logged: with the means of the checkpoint, if it was saved after the last batch."""
        metrics = super().metrics(on_step)
        if not on_step:
            for kind, values in self._means.items():
                metrics[kind] = values | metrics[kind]
        return metrics

    def reset(self, metrics: bool | None = None, fx: str | None = None) -> None:
        """Begin anew, at an epoch's end without the means of the checkpoint."""
        super().reset(metrics, fx)
        if metrics is None and fx is None:
            self._sums, self._means = {}, {}


def _select(values: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: _copy(values[name], "cpu") for name in names if name in values}


def _copy(value: Any, device: Any) -> Any:
    """Copy a state of a metric, a tensor or a list of them: metrics of a collection may share one tensor."""
    return value.to(device, copy=True) if isinstance(value, Tensor) else [_copy(part, device) for part in value]

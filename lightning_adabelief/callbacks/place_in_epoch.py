"""The place in an epoch at which a checkpoint was saved, and the way of Lightning's loops back there.

All that leans on the insides of those loops is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lightning_adabelief.lightning_tree import isolate_rng

Place = dict[str, Any]


def describe_place(trainer: Any, is_within_validation: bool) -> Place:
    """Return, as plain data, where a Trainer is: what its loops' own states leave out.

    Args:
        trainer: The Trainer.
        is_within_validation: True from the first hook of a validation during training to the last.
    """
    fit_loop = trainer.fit_loop
    loop = fit_loop.epoch_loop
    batches, epochs = loop.batch_progress.current, fit_loop.epoch_progress.current
    is_training = trainer.training and fit_loop._data_fetcher is not None
    is_at_batch_end = is_training and batches.processed == batches.ready == batches.completed + 1
    is_at_epoch_end = is_training and epochs.processed == epochs.ready == epochs.completed + 1
    return {
        "epoch": trainer.current_epoch,
        "batches_per_epoch": trainer.num_training_batches,
        "num_workers": [_count_workers(loader) for loader in list_loaders(fit_loop)],
        "is_within_batch": batches.started > batches.processed,
        "is_at_batch_end": is_at_batch_end,
        "is_at_epoch_end": is_at_epoch_end,
        "is_within_validation": is_within_validation,
        "validation_is_due": is_at_batch_end and loop._should_check_val_fx(fit_loop._data_fetcher),
        "has_accumulated": is_training and batches.ready > 0 and loop._should_accumulate(),
        "has_validation_workers": [_has_workers_now(loader) for loader in list_loaders(loop.val_loop)],
        "loaders_made_in_epoch": fit_loop._last_train_dl_reload_epoch,
        "logged_step": loop._batches_that_stepped,
        "metrics": {name: value.cpu() for name, value in trainer.callback_metrics.items()},
        "unlogged": _read_unlogged(trainer) if is_at_batch_end or is_at_epoch_end else {},
    }


def finish_batch(loops: dict[str, Any], place: Place) -> None:
    """Let the resumed run do what was still to follow on the checkpoint's batch: a validation, the epoch's end.

    Lightning 2.6 takes both for done in a checkpoint saved in ``on_train_batch_end`` or within a validation.

    Args:
        loops: The checkpoint's state of the fit loop, changed in place.
        place: Where it was saved.
    """
    batches = loops["epoch_loop.batch_progress"]
    validation_is_due = place["validation_is_due"] or place["is_within_validation"]
    if place["is_at_batch_end"] and (validation_is_due or batches["is_last_batch"]):
        for counts in (batches["total"], batches["current"]):
            counts["completed"] += 1
        if not validation_is_due:
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    if validation_is_due:
        # An evaluation that has begun, and has not finished a batch, is begun again.
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        loops["epoch_loop.val_loop.batch_progress"].update(total=begun, current=dict.fromkeys(begun, 0))


def finish_epoch(trainer: Any, place: Place) -> None:
    """Do what Lightning does after the hook in which a checkpoint of an epoch's end is saved.

    It steps the schedules that depend on a metric, logs the means over the epoch, and makes new loaders where
    ``reload_dataloaders_every_n_epochs`` asks for them.
    """
    fit_loop = trainer.fit_loop
    fit_loop.epoch_loop._batches_that_stepped = place["logged_step"]
    if place["is_at_epoch_end"]:
        fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        log_unlogged(trainer, place)
    fit_loop._last_train_dl_reload_epoch = place["loaders_made_in_epoch"]
    fit_loop.setup_data()


def log_unlogged(trainer: Any, place: Place) -> None:
    """Log what Lightning logs after the hook in which the checkpoint was saved."""
    if place["unlogged"]:
        step = place["logged_step"] - place["is_at_epoch_end"]  # means go by the epoch's last batch
        trainer._logger_connector.log_metrics({**place["unlogged"], "epoch": place["epoch"]}, step=step)


def collect_gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of a module's parameters, by their names."""
    return {name: param.grad.cpu() for name, param in module.named_parameters() if param.grad is not None}


def restore_gradients(module: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Set the gradients that :func:`collect_gradients` returned, to be accumulated upon."""
    for name, param in module.named_parameters():
        if name in gradients:
            param.grad = gradients[name].to(param.device)


def make_iterator(trainer: Any, data_fetcher: Any) -> None:
    """Make the iterator of the epoch that begins, unless Lightning is to make it or the one it has is as good.

    Lightning makes it at the start of each epoch but the first and the one in which a run is resumed: for these it
    keeps one that was made before the training began. Without workers, it has drawn no order then.
    """
    fit_loop = trainer.fit_loop
    keeps_old = fit_loop.epoch_loop.restarting or getattr(fit_loop, "is_resuming", False)
    is_made_by_lightning = trainer.current_epoch > 0 and not keeps_old
    has_workers = any(map(_count_workers, list_loaders(fit_loop)))
    if not is_made_by_lightning and (trainer.current_epoch > 0 or has_workers):
        iter(data_fetcher)


def skip_batches(data_fetcher: Any, count: int) -> None:
    """Load batches and leave them out. Lightning adds their number to those that were fetched by itself."""
    for _ in range(count):
        next(data_fetcher)
    data_fetcher.fetched -= count


def make_validation_workers(trainer: Any, place: Place) -> None:
    """Make the persistent workers of the validation that the checkpoint's run had, without drawing a random number.

    The first validation would make them, and draw one, which that of the uninterrupted run did not.
    """
    if not any(place["has_validation_workers"]):
        return
    trainer.fit_loop.epoch_loop.val_loop.setup_data()
    for loader, had_workers in zip(
        list_loaders(trainer.fit_loop.epoch_loop.val_loop), place["has_validation_workers"], strict=False
    ):
        if had_workers and getattr(loader, "persistent_workers", False):
            with isolate_rng():
                iter(loader)


def list_loaders(loop: Any) -> list[Any]:
    """Return a loop's loaders; none before Lightning has asked for them."""
    return [] if loop._combined_loader is None else loop._combined_loader.flattened


def list_differences(trainer: Any, place: Place) -> Iterator[str]:
    """Yield a line for each reason why the resumed run can't be the uninterrupted one."""
    loop = trainer.fit_loop.epoch_loop
    loaders = list_loaders(trainer.fit_loop)
    workers = [_count_workers(loader) for loader in loaders]
    is_within_epoch = 0 < loop.batch_progress.current.ready < trainer.num_training_batches
    if is_within_epoch and place["batches_per_epoch"] != trainer.num_training_batches:
        yield (
            f"an epoch has {place['batches_per_epoch']} batches in the checkpoint and {trainer.num_training_batches} "
            "in this run: what is left of this one is not what was left"
        )
    if workers != place["num_workers"]:
        yield (
            f"num_workers is {_join(place['num_workers'])} in the checkpoint and {_join(workers)} in this run: what is "
            "drawn as data are loaded, such as augmentation, is drawn anew"
        )
    elif any(getattr(loader, "persistent_workers", False) for loader in loaders):
        yield (
            "persistent workers begin with new random states: what they draw, such as augmentation, is drawn anew. "
            "Give persistent_workers=False, and a resumed run is exact"
        )
    if place["has_accumulated"] and trainer.world_size > 1:
        yield "the checkpoint was saved between batches whose gradients are accumulated: those of the first are lost"
    if place["is_within_batch"]:
        yield "the checkpoint was saved within a batch, which is done once more"


def _count_workers(loader: Any) -> int:
    return getattr(loader, "num_workers", 0)


def _has_workers_now(loader: Any) -> bool:
    """Return True if a loader keeps its workers, and has made them."""
    return getattr(loader, "_iterator", None) is not None


def _read_unlogged(trainer: Any) -> dict[str, Any]:
    """Return, at the end of a batch or an epoch, the metrics that are about to be logged."""
    connector, fit_loop = trainer._logger_connector, trainer.fit_loop
    is_at_batch_end = connector._first_loop_iter is not None
    is_left_out = fit_loop._should_accumulate() and trainer.lightning_module.automatic_optimization
    if is_at_batch_end and (is_left_out or not connector.should_update_logs):
        return {}
    metrics = connector.metrics["log"]
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))

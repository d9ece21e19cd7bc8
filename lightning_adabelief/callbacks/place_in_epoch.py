"""Where in an epoch a checkpoint was saved, and how Lightning's loops are brought back there.

All that leans on the insides of those loops is here.
"""

from __future__ import annotations

from typing import Any

Place = dict[str, Any]


def describe_place(trainer: Any) -> Place:
    """Return, as plain data, where a Trainer is: what its loops' own states leave out."""
    fit_loop = trainer.fit_loop
    loop = fit_loop.epoch_loop
    progress = loop.batch_progress.current
    is_at_batch_end = progress.processed == progress.ready == progress.completed + 1
    can_tell = trainer.training and fit_loop._data_fetcher is not None
    return {
        "batches_per_epoch": trainer.num_training_batches,
        "num_workers": [getattr(loader, "num_workers", 0) for loader in list_loaders(trainer)],
        "is_within_batch": progress.started > progress.processed,
        "is_at_batch_end": is_at_batch_end,
        "validation_is_due": is_at_batch_end and can_tell and loop._should_check_val_fx(fit_loop._data_fetcher),
        "has_accumulated": progress.ready > 0 and trainer.training and loop._should_accumulate(),
        "loaders_made_in_epoch": fit_loop._last_train_dl_reload_epoch,
        "logged_step": loop._batches_that_stepped,
    }


def list_loaders(trainer: Any) -> list[Any]:
    """Return the training loaders; none before Lightning has asked for them."""
    combined_loader = trainer.fit_loop._combined_loader
    return [] if combined_loader is None else combined_loader.flattened


def finish_batch(loops: dict[str, Any], place: Place) -> None:
    """Let the resumed run validate and end the epoch where that followed on the checkpoint's batch.

    Of a checkpoint saved in ``on_train_batch_end``, Lightning 2.6 takes both for done.

    Args:
        loops: The checkpoint's state of the fit loop, changed in place.
        place: Where it was saved.
    """
    batches = loops["epoch_loop.batch_progress"]
    if not place["is_at_batch_end"] or not (place["validation_is_due"] or batches["is_last_batch"]):
        return
    for counts in (batches["total"], batches["current"]):
        counts["completed"] += 1
    if place["validation_is_due"]:
        # An evaluation that has begun, and has not finished a batch, is begun again.
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        loops["epoch_loop.val_loop.batch_progress"].update(total=begun, current=dict.fromkeys(begun, 0))
    else:
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def reload_loaders(trainer: Any, place: Place) -> None:
    """Let ``reload_dataloaders_every_n_epochs`` count on, and make new loaders if that is due."""
    trainer.fit_loop._last_train_dl_reload_epoch = place["loaders_made_in_epoch"]
    trainer.fit_loop.setup_data()


def make_iterator(trainer: Any, data_fetcher: Any) -> None:
    """Make the iterator of the epoch that begins, unless Lightning is to make it or the one it has is as good.

    Lightning makes it at the start of each epoch but the first and the one in which a run is resumed: for these it
    keeps one that was made before the training began. Without workers, it has drawn no order then.
    """
    fit_loop = trainer.fit_loop
    keeps_old = fit_loop.epoch_loop.restarting or getattr(fit_loop, "is_resuming", False)
    is_made_by_lightning = trainer.current_epoch > 0 and not keeps_old
    has_workers = any(getattr(loader, "num_workers", 0) for loader in list_loaders(trainer))
    if not is_made_by_lightning and (trainer.current_epoch > 0 or has_workers):
        iter(data_fetcher)


def skip_batches(data_fetcher: Any, count: int) -> None:
    """Load batches and leave them out. Lightning adds their number to those that were fetched by itself."""
    for _ in range(count):
        next(data_fetcher)
    data_fetcher.fetched -= count

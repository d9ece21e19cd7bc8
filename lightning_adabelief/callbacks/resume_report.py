"""A callback that says, when a run is resumed, which options the checkpoint has otherwise than the config."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from lightning_adabelief.callbacks.watched import unwrap
from lightning_adabelief.lightning_tree import Callback, LightningModule, Trainer, rank_zero_info

NOT_OPTIONS = {"params", "param_names", "name"}
RUNNING = {"optimizer", "last_epoch", "verbose"}
"""Arguments of torch's schedulers that are no options."""

Options = dict[str, Any]


class ResumeReport(Callback):
    """Say which options of optimizers and schedules a resumed run takes from its checkpoint.

    torch's ``load_state_dict`` brings the checkpoint's ``lr``, ``eps``, ``T_max`` and so on, whatever
    ``configure_optimizers`` said, without a word. This callback logs a line for each that differs. Of a
    learning rate that a schedule drives, what the schedule began with is compared. The command
    ``adabelief`` has it; it is of use with any optimizer.

    Example:
        >>> import pytorch_lightning as pl
        >>> from lightning_adabelief.callbacks import ResumeReport
        >>> trainer = pl.Trainer(callbacks=[ResumeReport()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._configured: dict[str, Options] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the options as configured: the optimizers are there, and not yet restored."""
        self._configured = _options(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare them with the options now, which are the checkpoint's."""
        now = _options(trainer)
        for owner, configured in self._configured.items():
            for option, value in now.get(owner, {}).items():
                if option in configured and configured[option] != value:
                    rank_zero_info(say_difference(f"{owner}'s {option}", value, configured[option]))
        self._configured = {}


def say_difference(what: str, in_checkpoint: Any, in_config: Any) -> str:
    """One line: what differs, both values, and that the checkpoint's is taken."""
    values = f"{in_checkpoint} in the checkpoint and {in_config} in the config"
    return f"ckpt_path: {what} is {values}; the checkpoint's is taken"


def _options(trainer: Any) -> dict[str, Options]:
    """From the name of a param group or schedule to its options."""
    found: dict[str, Options] = {}
    for number, optimizer in enumerate(map(unwrap, trainer.optimizers)):
        name = _numbered(type(optimizer).__name__, number, len(trainer.optimizers))
        groups = optimizer.param_groups
        for position, group in enumerate(groups, start=1):
            owner = name if len(groups) == 1 else f"{name}/{group.get('name', f'pg{position}')}"
            found[owner] = _group_options(group)
    for number, config in enumerate(trainer.lr_scheduler_configs):
        found |= _schedule_options(config.scheduler, number, len(trainer.lr_scheduler_configs))
    return found


def _group_options(group: dict[str, Any]) -> Options:
    options = {name: _plain(value) for name, value in group.items() if name not in NOT_OPTIONS}
    if "initial_lr" in options:  # a schedule moves lr
        options["lr"] = options.pop("initial_lr")
    return options


def _schedule_options(scheduler: Any, number: int, of: int) -> dict[str, Options]:
    """What a scheduler's constructor takes and its state keeps; of one made of others, theirs."""
    parts = getattr(scheduler, "_schedulers", [])
    found: dict[str, Options] = {}
    for position, part in enumerate(parts):
        found |= _schedule_options(part, position, len(parts))
    arguments = set(inspect.signature(type(scheduler)).parameters) - RUNNING
    state = {name: _plain(value) for name, value in vars(scheduler).items() if name in arguments}
    return found | {_numbered(type(scheduler).__name__, number, of): state}


def _numbered(name: str, number: int, of: int) -> str:
    return name if of == 1 else f"{name} {number + 1}"


def _plain(value: Any) -> Any:
    """A value that can be compared: a tensor's number, a tuple for a list, a schedule's steps for a counter of them."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return dict(value)
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value

"""A callback that reports, when a run is resumed, the options in which checkpoint and config differ."""

from __future__ import annotations

import inspect
from itertools import zip_longest
from typing import Any

from torch import Tensor

from lightning_adabelief.beliefs.reading import find_optimizers
from lightning_adabelief.callbacks.optimizer_names import name_optimizers
from lightning_adabelief.lightning_tree import Callback, LightningModule, Trainer, rank_zero_info

NOT_OPTIONS = {"params", "param_names", "name"}
NOT_SCHEDULE_OPTIONS = {"optimizer", "last_epoch", "verbose"}
"""Arguments of torch's schedulers that are not options."""
IN_EVERY_SCHEDULE_STATE = NOT_SCHEDULE_OPTIONS | {"base_lrs"}

Options = dict[str, Any]


class ResumeReport(Callback):
    """Say which options of optimizers and schedules a resumed run takes from its checkpoint.

    torch's ``load_state_dict`` brings the checkpoint's ``lr``, ``eps``, ``T_max`` and so on, whatever
    ``configure_optimizers`` said, without a word. This callback logs a line for each that differs. Of a
    learning rate that a schedule drives, what the schedule began with is compared. A schedule of another
    kind than the checkpoint's, which is told by what its state holds, has a line as well. The command
    ``adabelief`` has it; it is of use with any optimizer.

    Example:
        >>> import pytorch_lightning as pl
        >>> from lightning_adabelief.callbacks import ResumeReport
        >>> trainer = pl.Trainer(callbacks=[ResumeReport()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._configured: dict[str, Options] = {}
        self._saved_schedules: list[set[str]] = []
        self._saved_state_bits: list[set[int]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the options in the checkpoint's schedules, and the bits of its AdaBeliefs' averages."""
        self._saved_schedules = [_schedule_option_names(state) for state in checkpoint.get("lr_schedulers", [])]
        self._saved_state_bits = [_find_state_bits(state) for state in checkpoint.get("optimizer_states", [])]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the options as configured: the optimizers are there, and not yet restored."""
        self._configured = _collect_options(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare them with the options now, which are the checkpoint's."""
        now = _collect_options(trainer)
        if trainer.ckpt_path is not None:
            self._compare_kinds(trainer)
            self._compare_state_bits(trainer)
        for owner, configured in self._configured.items():
            for option, value in now.get(owner, {}).items():
                if option in configured and configured[option] != value:
                    rank_zero_info(say_difference(f"{owner}'s {option}", value, configured[option]))
        self._configured = {}

    def _compare_kinds(self, trainer: Any) -> None:
        """Say where the checkpoint has schedules of another kind, or another number of them."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        lrs = ", ".join(
            str(_to_comparable(group["lr"])) for optimizer in trainer.optimizers for group in optimizer.param_groups
        )
        ending = f"the config's is taken, and lr goes on from the checkpoint's, {lrs}"
        for scheduler, saved in zip_longest(schedulers, self._saved_schedules):
            if scheduler is None:
                what = f"there is a schedule in the checkpoint, of {_join_names(saved)}, and none in the config"
            elif saved is None:
                what = f"there is no schedule in the checkpoint, and {type(scheduler).__name__} in the config"
            elif saved != (held := _schedule_option_names(scheduler.state_dict())):
                what = (
                    f"the schedule is one of {_join_names(saved)} in the checkpoint and {type(scheduler).__name__}, of "
                )
                what += f"{_join_names(held)}, in the config"
            else:
                continue
            rank_zero_info(f"ckpt_path: {what}; {ending}")

    def _compare_state_bits(self, trainer: Any) -> None:
        """Say where averages are kept in other bits than in the checkpoint: alone of the options, the config's stay."""
        names = name_optimizers(trainer.optimizers)
        for name, optimizer, saved in zip(names, trainer.optimizers, self._saved_state_bits, strict=False):
            held = _find_state_bits({"param_groups": optimizer.param_groups})
            if saved and held and saved != held:
                before, now = (" and ".join(map(str, sorted(bits))) for bits in (saved, held))
                rank_zero_info(
                    f"ckpt_path: {name}'s state_bits is {before} in the checkpoint and {now} in the config; m_t and "
                    "s_t are converted to the config's"
                )


def say_difference(what: str, in_checkpoint: Any, in_config: Any) -> str:
    """Return one line: what differs, both values, and that the checkpoint's is taken."""
    values = f"{in_checkpoint} in the checkpoint and {in_config} in the config"
    return f"ckpt_path: {what} is {values}; the checkpoint's is taken"


def _collect_options(trainer: Any) -> dict[str, Options]:
    """Return the options of each param group and schedule, by its name."""
    found: dict[str, Options] = {}
    optimizers = [inner for optimizer in trainer.optimizers for inner in find_optimizers(optimizer)]
    for name, optimizer in zip(name_optimizers(optimizers), optimizers, strict=True):
        groups = optimizer.param_groups
        driven = any(config.scheduler.optimizer is optimizer for config in trainer.lr_scheduler_configs)
        for position, group in enumerate(groups, start=1):
            owner = name if len(groups) == 1 else f"{name}/{group.get('name', f'pg{position}')}"
            found[owner] = _group_options(group, driven)
    for number, config in enumerate(trainer.lr_scheduler_configs):
        found |= _schedule_options(config.scheduler, number, len(trainer.lr_scheduler_configs))
    return found


def _group_options(group: dict[str, Any], driven: bool) -> Options:
    options = {name: _to_comparable(value) for name, value in group.items() if name not in NOT_OPTIONS}
    began_with = options.pop("initial_lr", None)  # there too where the checkpoint's run had a schedule
    if driven and began_with is not None:
        options["lr"] = began_with
    return options


def _schedule_option_names(state: dict[str, Any]) -> set[str]:
    """Return the names of the options in a schedule's state."""
    return {name for name in state if not name.startswith("_")} - IN_EVERY_SCHEDULE_STATE


def _find_state_bits(state: dict[str, Any]) -> set[int]:
    """Return the ``state_bits`` of the param groups of an AdaBelief's state dict; of another's, none."""
    return {group.get("state_bits", 32) for group in state.get("param_groups", ()) if "residual" in group}


def _join_names(names: set[str]) -> str:
    return ", ".join(sorted(names, key=str.lower)) or "no options"


def _schedule_options(scheduler: Any, number: int, of: int) -> dict[str, Options]:
    """Return the options that a scheduler's constructor takes and its state keeps, and those of its parts."""
    parts = getattr(scheduler, "_schedulers", [])
    found: dict[str, Options] = {}
    for position, part in enumerate(parts):
        found |= _schedule_options(part, position, len(parts))
    arguments = set(inspect.signature(type(scheduler)).parameters) - NOT_SCHEDULE_OPTIONS
    state = {name: _to_comparable(value) for name, value in vars(scheduler).items() if name in arguments}
    return found | {_number_name(type(scheduler).__name__, number, of): state}


def _number_name(name: str, number: int, of: int) -> str:
    return name if of == 1 else f"{name} {number + 1}"


def _to_comparable(value: Any) -> Any:
    """Return a value that can be compared: numbers for a tensor, a tuple for a list, a dict for a Counter."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return dict(value)
    return tuple(map(_to_comparable, value)) if isinstance(value, list | tuple) else value

"""``configure_adabelief``: what a ``configure_optimizers`` returns."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from lightning_adabelief.configure.groups import OPTIONS, Named, named_parameters, param_groups
from lightning_adabelief.configure.lr_schedules import check_schedule, make_schedule
from lightning_adabelief.configure.run_length import steps_needed, trainer_of
from lightning_adabelief.lightning_tree import rank_zero_info, rank_zero_warn
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.fused import can_fuse, check_fused
from lightning_adabelief.optim.options import check_values
from lightning_adabelief.optim.scaling import is_share, warmup_steps

if TYPE_CHECKING:
    from typing_extensions import Unpack

AUTOMATICALLY_FUSED = ("cpu",)
"""The devices on which the fused path is chosen unasked: those on which it has been run and timed."""


class AdaBeliefOptions(TypedDict, total=False):
    """Those of AdaBelief's options that are passed on as they are."""

    betas: tuple[float, float] | tuple[Tensor, Tensor]
    eps: float
    amsgrad: bool
    weight_decouple: bool
    fixed_decay: bool
    rectify: bool
    degenerated_to_sgd: bool
    residual: Literal["updated", "previous"]
    maximize: bool
    foreach: bool | None
    capturable: bool
    differentiable: bool


def configure_adabelief(
    module: nn.Module,
    lr: float | Tensor = 1e-3,
    *,
    weight_decay: float = 0.0,
    decay_embeddings: bool = True,
    layers: Mapping[str, Mapping[str, Any]] | None = None,
    warmup: int | float = 0,
    schedule: Literal["cosine", "linear", "step"] | Callable[[AdaBelief], LRScheduler] | None = None,
    schedule_interval: Literal["step", "epoch"] = "epoch",
    total_steps: int | None = None,
    steps_per_batch: float | None = None,
    trainer_steps_per_batch: float | None = None,
    trainer: Any = None,
    fused: bool | None = None,
    **options: Unpack[AdaBeliefOptions],
) -> Any:
    """Make what a ``configure_optimizers`` returns: AdaBelief, and its schedule if one is asked for.

    - Its parameters are named. Biases, the parameters of normalization layers, all vectors and numbers,
      tokens and position embeddings have no weight decay (the names: ``configure.weight_decay``), nor
      does what the module or a part of it names in ``no_weight_decay()``, as timm's do. The split is
      logged once, and is there to see as the names of the param groups:
      ``decayed``, ``undecayed`` and, where ``layers`` says so, ``encoder/decayed``; LearningRateMonitor
      logs by them.
    - ``warmup`` may be a share of the run, in this optimizer's own steps.
    - Frozen parameters (``requires_grad=False``) are left out. One that is unfrozen later, as by
      Lightning's BaseFinetuning, comes by ``add_param_group`` and takes part from there: it is its
      own step 1, so that its warmup and rectification begin then and last as long as the others'. Its
      options are those given with it and the optimizer's defaults; it stays one group, for
      ``BackboneFinetuning`` drives just one, and so ``weight_decay`` there is for its biases too.
    - The fused path is taken where it serves every parameter, on devices where it has been timed (the
      CPU, where a kernel is compiled once a machine, for some seconds), and neither ``foreach`` nor
      ``differentiable`` is given, for a layer either. No precision plugin, gradient scaler, clipping or
      sharding is in its way.
    - A Trainer that clips gradients by value is warned of: it makes AdaBelief's steps explode.

    Args:
        module: A LightningModule; or any module, as one of the two networks of a GAN.
        lr: Learning rate (default: 1e-3).
        weight_decay: Of all but biases and norms (default: 0).
        decay_embeddings: Whether ``nn.Embedding`` has weight decay (default: True).
        layers: Options by layer: from a glob over the names of parameters to any options of AdaBelief,
            ``{"encoder.*": {"lr": 1e-4}}``. Where several globs match a parameter all apply, in order, a
            later one winning; a tied parameter is matched by any of its names. ``weight_decay`` here
            leaves out the same parameters, except one whose full name stands in the place of a glob.
        warmup: An int is a number of steps; a float in (0, 1) a share of the run (default: 0, none).
        schedule: ``"cosine"`` or ``"linear"``: lr is held for the longest warmup, then lowered to 0 at the
            end of the run; ``"step"``: lr falls to a tenth after three quarters of the run; or a function
            from the optimizer to a scheduler, of torch's or Lightning's own ``ReduceLROnPlateau(optimizer,
            monitor=...)`` (``pytorch_lightning.cli``). The warmup multiplies whatever lr the schedule
            sets; resuming continues both exactly (default: None).
        schedule_interval: Whether a scheduler made by a function counts steps or epochs (default: epochs,
            as Lightning's own); those by name count steps.
        total_steps: Length of the run in this optimizer's steps, where it is not the Trainer's to know.
        steps_per_batch: Under manual optimization, how often this optimizer steps a batch: 1/5 for
            every fifth (see :func:`optimizer_steps`).
        trainer_steps_per_batch: Under manual optimization with ``max_steps``, how often all optimizers
            together step a batch.
        trainer: The Trainer, where ``module`` is no LightningModule that knows it.
        fused: Whether to take the fused path (default: None, where it can go).
        **options: AdaBelief's others.

    Returns:
        The optimizer; with a schedule, Lightning's dictionary of both. Under manual optimization a
        schedule is yours to step.

    Raises:
        TypeError: If there is no such option.
        ValueError: If a value is not allowed, nothing is to be trained, a glob matches nothing, or the
            length of the run is needed and can't be known; else as AdaBelief does.
        RuntimeError: If ``fused=True`` can't serve a parameter.

    Example::

        def configure_optimizers(self):
            return configure_adabelief(self, lr=1e-3, weight_decay=1e-2, warmup=0.05, schedule="cosine")
    """
    layers = layers or {}
    _check_names(options)
    check_values({"lr": lr, "weight_decay": weight_decay, "warmup": warmup, "total_steps": total_steps, **options})
    check_schedule(schedule, schedule_interval)
    trainer = trainer or trainer_of(module)
    trained, frozen = named_parameters(module)
    groups = param_groups(module, trained, weight_decay=weight_decay, decay_embeddings=decay_embeddings, layers=layers)
    warmups = [warmup, *(of["warmup"] for of in layers.values() if "warmup" in of)]
    shares = [value for value in warmups if is_share(value)]
    if total_steps is None and (shares or isinstance(schedule, str)):
        needed_for = f"warmup={shares[0]}" if shares else f"schedule={schedule!r}"
        total_steps = steps_needed(needed_for, trainer, steps_per_batch, trainer_steps_per_batch)
    if fused is None:
        asked_for = any(_asks_for_a_path(some) for some in (options, *layers.values()))
        fused = None if asked_for else _can_go_fused(trained, trainer) or None
    elif fused:
        for _, param in trained:
            check_fused(param)
    optimizer = AdaBelief(
        groups, lr=lr, weight_decay=weight_decay, warmup=warmup, total_steps=total_steps, fused=fused, **options
    )
    optimizer.late_names = {param: name for name, param in frozen}
    optimizer.register_load_state_dict_post_hook(_unfreeze_late_parameters)
    warn_of_clipping_by_value(trainer)
    _tell(optimizer, frozen)
    if schedule is None:
        return optimizer
    if isinstance(schedule, str):
        assert total_steps is not None
        longest = max(warmup_steps(value, total_steps) for value in warmups)
        scheduler = make_schedule(schedule, optimizer, longest, total_steps)
        schedule_interval = "step"
    else:
        scheduler = schedule(optimizer)
    config = {"scheduler": scheduler, "interval": schedule_interval}
    if hasattr(scheduler, "monitor"):  # Lightning's own ReduceLROnPlateau
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def warn_of_clipping_by_value(trainer: Any) -> None:
    """Warn where the Trainer clips gradients by value."""
    if getattr(trainer, "gradient_clip_val", None) and trainer.gradient_clip_algorithm == "value":
        rank_zero_warn(
            f"gradient_clip_algorithm='value' with AdaBelief: a gradient held at {trainer.gradient_clip_val} agrees "
            "with itself ever more, its s_t goes to 0, and the step explodes. Clip by norm: "
            "Trainer(gradient_clip_algorithm='norm')"
        )


def _check_names(options: Mapping[str, Any]) -> None:
    """Check that the remaining options are AdaBelief's."""
    known = set(inspect.signature(configure_adabelief).parameters) | OPTIONS
    for option in options:
        if option not in OPTIONS:
            near = " or ".join(difflib.get_close_matches(option, known - {"options"}, n=2, cutoff=0))
            raise TypeError(f"configure_adabelief has no option {option!r}. Did you mean {near}?")


def _asks_for_a_path(options: Mapping[str, Any]) -> bool:
    """Whether options leave the choice of the path open no more."""
    chosen = options.get("foreach") is not None or options.get("fused") is not None
    return chosen or bool(options.get("differentiable"))


def _can_go_fused(named: Named, trainer: Any) -> bool:
    """Whether to take the fused path unasked: parameters are where they will be trained, and it serves them."""
    devices = {param.device.type for _, param in named}
    if trainer is not None and devices != {trainer.strategy.root_device.type}:  # to be moved, or offloaded
        return False
    return devices <= set(AUTOMATICALLY_FUSED) and can_fuse(param for _, param in named)


def _unfreeze_late_parameters(optimizer: Any) -> None:
    """Unfreeze what a checkpoint's optimizer had taken up: on resuming, BaseFinetuning leaves it frozen."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param in optimizer.late_names:
                param.requires_grad_(True)


def _tell(optimizer: AdaBelief, frozen: Named) -> None:
    """Log the split, in one line, where there is one."""
    named = {group["name"]: group["params"] for group in optimizer.param_groups if "name" in group}
    if frozen:
        named["frozen, left out"] = [param for _, param in frozen]
    parts = [
        f"{name} {len(params)} tensors ({sum(param.numel() for param in params):,} parameters)"
        for name, params in named.items()
    ]
    if parts:
        rank_zero_info(f"AdaBelief: {'; '.join(parts)}")

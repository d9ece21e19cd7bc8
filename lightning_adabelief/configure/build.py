"""``configure_adabelief``: what a ``configure_optimizers`` returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_adabelief.configure.group_report import log_groups, log_master_weights, log_state_bits
from lightning_adabelief.configure.groups import OPTIONS, Named, named_parameters, param_groups
from lightning_adabelief.configure.lr_schedules import check_schedule, make_schedule
from lightning_adabelief.configure.run_follower import RunFollower
from lightning_adabelief.configure.run_length import optimizer_steps, steps_needed, trainer_of
from lightning_adabelief.configure.scaling_choice import choose_scaling, report_scaling
from lightning_adabelief.configure.weight_decay import divide_decay_by_lr
from lightning_adabelief.lightning_tree import rank_zero_warn
from lightning_adabelief.optim import gradient_release
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.fused import are_fusable, check_fused, load_implementation
from lightning_adabelief.optim.options import as_number, check_values
from lightning_adabelief.optim.scaling import is_fraction, warmup_steps
from lightning_adabelief.suggest import suggest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightning_adabelief.configure.option_types import AdaBeliefOptions, ConfigureOptions
    from lightning_adabelief.lightning_tree import OptimizerLRSchedulerConfig

Schedule: TypeAlias = Literal["cosine", "linear", "step"] | Callable[[AdaBelief], LRScheduler | ReduceLROnPlateau]
"""A schedule by its name, or a function from the optimizer to a scheduler."""

AUTOMATICALLY_FUSED = ("cpu",)
"""Devices on which the fused implementation is chosen unasked: it has been run and timed there."""


@overload
def configure_adabelief(
    module: nn.Module, lr: float | Tensor = ..., *, schedule: None = None, **options: Unpack[ConfigureOptions]
) -> AdaBelief: ...


@overload
def configure_adabelief(
    module: nn.Module, lr: float | Tensor = ..., *, schedule: Schedule, **options: Unpack[ConfigureOptions]
) -> OptimizerLRSchedulerConfig: ...


def configure_adabelief(
    module: nn.Module,
    lr: float | Tensor = 1e-3,
    *,
    weight_decay: float = 0.0,
    decay_embeddings: bool = True,
    layers: Mapping[str, Mapping[str, Any]] | None = None,
    layer_decay: float | None = None,
    decouple_lr: bool = False,
    warmup: int | float | None = None,
    rectify: bool | None = None,
    schedule: Schedule | None = None,
    schedule_interval: Literal["step", "epoch"] = "epoch",
    total_steps: int | None = None,
    steps_per_batch: float | None = None,
    trainer_steps_per_batch: float | None = None,
    trainer: Any = None,
    fused: bool | None = None,
    release_gradients: bool = False,
    **options: Unpack[AdaBeliefOptions],
) -> AdaBelief | OptimizerLRSchedulerConfig:
    """Make what a ``configure_optimizers`` returns: AdaBelief, and a learning-rate schedule if one is asked for.

    - Its parameters are named. Biases, the parameters of normalization layers, all vectors and numbers,
      tokens and position embeddings have no weight decay (the names: ``configure.weight_decay``), nor
      does what the module or a part of it names in ``no_weight_decay()``, as timm's do. The split is
      logged once, as a table where there is more to it, and is there to see as the names of the param
      groups: ``decayed``, ``undecayed``, and ``encoder/decayed`` or ``depth03/decayed`` where ``layers``
      or ``layer_decay`` says so; LearningRateMonitor logs by them.
    - ``warmup`` may be a fraction of the run, in this optimizer's own steps.
    - Rectification, which in a short run takes most of lr, or a warmup of 5 % in its place is chosen by
      the length of the run where neither ``rectify`` nor ``warmup`` is given; one line says which, and
      how much of lr acts on average. A resumed run has what its checkpoint has.
    - The length of the run is counted again as each epoch begins. Where it changed, by a larger
      ``max_epochs`` or other data, the schedule goes on from where lr stands to the new end.
    - In a search by Lightning's ``lr_find`` or ``LearningRateFinder`` the rate tried is the rate that
      acts: warmup and rectification are left out.
    - Frozen parameters (``requires_grad=False``) are left out. One that is unfrozen later, as by
      Lightning's BaseFinetuning, comes by ``add_param_group`` and takes part from there: it is its
      own step 1, so that its warmup and rectification begin then and last as long as the others'. Its
      options are those given with it and the optimizer's defaults; it stays one group, for
      ``BackboneFinetuning`` drives just one, and so ``weight_decay`` there is for its biases too.
    - The fused implementation of the step is taken where it serves every parameter, on devices where it
      has been timed (the CPU, where a kernel is compiled once a machine, for some seconds), and neither
      ``foreach`` nor ``differentiable`` is given, for a layer either. It works with every precision
      plugin, gradient scaler, clipping and sharding. Where the kernel cannot be had, as without a C++
      compiler, ``foreach`` is taken in its place, and a warning says why.
    - A Trainer that clips gradients by value is warned of: it makes AdaBelief's steps explode.

    Args:
        module: A LightningModule; or any module, as one of the two networks of a GAN.
        lr: Learning rate (default: 1e-3).
        weight_decay: Of the parameters that are decayed (default: 0).
        decay_embeddings: Give ``nn.Embedding`` weight decay (default: True).
        layers: Options by layer: from a glob over the names of parameters to any options of AdaBelief,
            ``{"encoder.*": {"lr": 1e-4}}``. Where several globs match a parameter all apply, in order, a
            later one winning; a tied parameter is matched by any of its names. ``weight_decay`` here
            leaves out the same parameters, except one whose full name stands in the place of a glob.
        layer_decay: Factor of lr from a layer to the one below it, for fine-tuning: the head has lr, the last
            layer ``lr * layer_decay``, the one before it ``lr * layer_decay**2``, and embeddings or a stem
            the least (see :mod:`~lightning_adabelief.configure.layer_depth`). An lr in ``layers`` wins over
            it; a layer unfrozen later has the lr that it is given (default: None, the same lr everywhere).
        decouple_lr: Have weight decay follow the warmup and the schedule of lr, but not its size, so that
            the two are tuned apart: a step takes ``weight_decay * lr_t / lr`` of a weight, rather than
            ``weight_decay * lr_t``. ``weight_decay`` is then about lr times smaller: 1e-5 for 1e-2 at
            lr 1e-3 (default: False).
        warmup: An int is a number of steps; a float in (0, 1) a fraction of the run (default: None, 5 % of
            the run where rectification would let through less than 0.9 of lr on average, otherwise none).
        rectify: Multiply the step by RAdam's r_t, which grows slowly from near 0 to 1 (default: None, without a
            warmup in runs long enough for it, and where the length is unknown).
        schedule: ``"cosine"`` or ``"linear"``: lr is held for the longest warmup, then lowered to 0 at the
            end of the run; ``"step"``: lr falls to a tenth after three quarters of the run; or a function
            from the optimizer to a scheduler, of torch's or Lightning's own ``ReduceLROnPlateau(optimizer,
            monitor=...)`` (``pytorch_lightning.cli``). The warmup multiplies whatever lr the schedule
            sets; resuming continues both exactly (default: None).
        schedule_interval: Unit that a scheduler made by a function counts, steps or epochs (default: epochs,
            as Lightning's own); those by name count steps.
        total_steps: Length of the run in this optimizer's steps, where it is not the Trainer's to know.
        steps_per_batch: Under manual optimization, how often this optimizer steps a batch: 1/5 for
            every fifth (see :func:`optimizer_steps`).
        trainer_steps_per_batch: Under manual optimization with ``max_steps``, how often all optimizers
            together step a batch.
        trainer: The Trainer, where ``module`` is no LightningModule that knows it.
        fused: Take the fused implementation (default: None, where it serves every parameter).
        release_gradients: Step each parameter within the backward pass and drop its gradient, so that one gradient at
            a time takes memory; see :func:`~lightning_adabelief.release_gradients` for what can't go together with
            it (default: False).
        **options: AdaBelief's others.

    Returns:
        The optimizer; with a schedule, Lightning's dictionary of both. Under manual optimization a
        schedule is yours to step. Of several optimizers Lightning takes a list where all or none have a schedule;
        otherwise return ``[a["optimizer"], b], [a["lr_scheduler"]]``.

    Raises:
        TypeError: If there is no such option.
        ValueError: If a value is not allowed, nothing is to be trained, a glob matches nothing,
            ``layer_decay`` finds no layers, ``decouple_lr`` meets a decay that lr does not scale, or the
            length of the run is needed and can't be known; else as AdaBelief does.
        RuntimeError: If ``fused=True`` can't serve a parameter.

    Example::

        def configure_optimizers(self):
            return configure_adabelief(self, lr=1e-3, weight_decay=1e-2, warmup=0.05, schedule="cosine")
    """
    layers = layers or {}
    _check_names(options)
    given = {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps, **options}
    check_values(given if warmup is None else {**given, "warmup": warmup})
    check_schedule(schedule, schedule_interval)
    trainer = trainer or trainer_of(module)
    trained, frozen = named_parameters(module)
    groups = param_groups(
        module,
        trained,
        lr=lr,
        weight_decay=weight_decay,
        decay_embeddings=decay_embeddings,
        layers=layers,
        layer_decay=layer_decay,
    )
    if decouple_lr:
        weight_decay = divide_decay_by_lr(groups, lr, weight_decay, options)

    warmups = [warmup or 0, *(of["warmup"] for of in layers.values() if "warmup" in of)]
    fractions = [value for value in warmups if is_fraction(value)]
    counted_by_trainer = total_steps is None
    if total_steps is None and (fractions or isinstance(schedule, str)):
        needed_for = f"warmup={fractions[0]}" if fractions else f"schedule={schedule!r}"
        total_steps = steps_needed(needed_for, trainer, steps_per_batch, trainer_steps_per_batch)
    run_steps = total_steps or _count_if_known(trainer, steps_per_batch, trainer_steps_per_batch)

    beta2 = float(as_number(options.get("betas", (0.9, 0.999))[1]))
    scaling = choose_scaling(rectify, warmup, total_steps=run_steps, beta2=beta2)
    if run_steps is not None and _scaling_is_of_this_run(trainer):
        chosen_by_user = rectify is not None or warmup is not None
        report_scaling(scaling, chosen_by_user=chosen_by_user, total_steps=run_steps, beta2=beta2)
    warmups[0] = scaling.warmup
    if is_fraction(scaling.warmup):
        total_steps = run_steps

    fused, in_its_place = _choose_fused(fused, trained, trainer, [{"lr": lr}, options, *layers.values()])
    if in_its_place == "foreach":
        options["foreach"] = True
    optimizer = AdaBelief(
        groups,
        lr=lr,
        weight_decay=weight_decay,
        warmup=scaling.warmup,
        rectify=scaling.rectify,
        total_steps=total_steps,
        fused=fused,
        **options,
    )
    optimizer.late_names = {param: name for name, param in frozen}
    optimizer.register_load_state_dict_post_hook(_unfreeze_late_parameters)
    if release_gradients:
        gradient_release.release_gradients(module, optimizer)
    warn_of_clipping_by_value(trainer)
    log_groups(optimizer, frozen)
    log_master_weights(optimizer)
    log_state_bits(optimizer)
    counts_steps = trainer is not None and counted_by_trainer and total_steps is not None
    configured: Any = optimizer
    named_scheduler = None
    if schedule is not None:
        longest = max(warmup_steps(value, total_steps) for value in warmups)
        configured = _add_schedule(optimizer, schedule, schedule_interval, longest, total_steps, counts_steps)
        named_scheduler = configured["lr_scheduler"]["scheduler"] if isinstance(schedule, str) else None
    if trainer is not None:
        RunFollower(
            optimizer,
            trainer,
            scheduler=named_scheduler,
            counts_steps=counts_steps,
            steps_per_batch=steps_per_batch,
            trainer_steps_per_batch=trainer_steps_per_batch,
            reports_scaling=run_steps is not None,
        )
    return configured


def _count_if_known(trainer: Any, steps_per_batch: float | None, trainer_steps_per_batch: float | None) -> int | None:
    """Count the run's steps; None where their number can't be known, or there is none."""
    if trainer is None:
        return None
    try:
        return optimizer_steps(trainer, steps_per_batch, trainer_steps_per_batch) or None
    except ValueError:
        return None


def _scaling_is_of_this_run(trainer: Any) -> bool:
    """Return False where a checkpoint's options replace those given here, or the run is a trial of a few batches."""
    return trainer is None or (trainer.ckpt_path is None and not trainer.fast_dev_run)


def _choose_fused(
    fused: bool | None, trained: Named, trainer: Any, options: list[Mapping[str, Any]]
) -> tuple[bool | None, str | None]:
    """Return the option ``fused``, and the implementation taken where its kernel cannot be had.

    ``fused`` is as given, once it is known to serve; else True where it can be taken unasked.
    """
    if fused:
        for _, param in trained:
            check_fused(param)
    if fused is not None or any(_chooses_implementation(some) for some in options):
        return fused, None
    if not _can_be_fused(trained, trainer):
        return None, None
    try:
        for device in {param.device for _, param in trained}:
            load_implementation(device)
    except RuntimeError as error:
        # foreach=True takes no tensors for lr and betas, unless capturable.
        in_its_place = "forloop" if any(_has_tensors(some) for some in options) else "foreach"
        cause = str(error).splitlines()[0]  # without the compiler's output
        rank_zero_warn(
            f"AdaBelief takes its {in_its_place!r} implementation, which is slower than the fused one. {cause}"
        )
        return None, in_its_place
    return True, None


def _add_schedule(
    optimizer: AdaBelief,
    schedule: str | Callable[[AdaBelief], LRScheduler],
    interval: str,
    longest_warmup: float,
    total_steps: int | None,
    follows_run: bool,
) -> dict[str, Any]:
    """Return Lightning's dictionary of the optimizer and its learning-rate schedule."""
    scheduler: Any
    if isinstance(schedule, str):
        assert total_steps is not None, "counted when the schedule was seen to need it"
        scheduler = make_schedule(schedule, optimizer, longest_warmup, total_steps, follows_run)
        interval = "step"
    else:
        scheduler = schedule(optimizer)
    config = {"scheduler": scheduler, "interval": interval}
    if hasattr(scheduler, "monitor"):  # Lightning's own ReduceLROnPlateau
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def warn_of_clipping_by_value(trainer: Any) -> None:
    """Warn where the Trainer clips gradients by value."""
    if getattr(trainer, "gradient_clip_val", None) and trainer.gradient_clip_algorithm == "value":
        rank_zero_warn(
            f"gradient_clip_algorithm='value' with AdaBelief: a gradient held at {trainer.gradient_clip_val} no longer "
            "changes, its s_t goes to 0, and the step explodes. Clip by norm: "
            "Trainer(gradient_clip_algorithm='norm')"
        )


def _check_names(options: Mapping[str, Any]) -> None:
    """Check that the remaining options are AdaBelief's."""
    known = (set(inspect.signature(configure_adabelief).parameters) | OPTIONS) - {"options"}
    for option in options:
        if option not in OPTIONS:
            raise TypeError(f"configure_adabelief has no option {option!r}. {suggest(option, sorted(known))}")


def _chooses_implementation(options: Mapping[str, Any]) -> bool:
    """Return True if options choose between the implementations of the step."""
    chosen = options.get("foreach") is not None or options.get("fused") is not None
    return chosen or bool(options.get("differentiable"))


def _has_tensors(options: Mapping[str, Any]) -> bool:
    """Return True if the learning rate or the betas are tensors."""
    return any(isinstance(value, Tensor) for value in (options.get("lr"), *options.get("betas", ())))


def _can_be_fused(named: Named, trainer: Any) -> bool:
    """Return True if all parameters are where they will be trained, and of a kind that the fused kernel serves."""
    devices = {param.device.type for _, param in named}
    if trainer is not None and devices != {trainer.strategy.root_device.type}:  # to be moved, or offloaded
        return False
    return devices <= set(AUTOMATICALLY_FUSED) and are_fusable(param for _, param in named)


def _unfreeze_late_parameters(optimizer: Any) -> None:
    """Unfreeze the parameters of groups that a checkpoint added: on resuming, BaseFinetuning leaves them frozen."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param in optimizer.late_names:
                param.requires_grad_(True)

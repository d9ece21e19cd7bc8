"""The types of the options that ``configure_adabelief`` takes, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from torch import Tensor


class AdaBeliefOptions(TypedDict, total=False):
    """Options of AdaBelief that are passed on as they are."""

    betas: tuple[float, float] | tuple[Tensor, Tensor]
    eps: float
    amsgrad: bool
    weight_decouple: bool
    fixed_decay: bool
    degenerated_to_sgd: bool
    residual: Literal["updated", "previous"]
    nonfinite: Literal["propagate", "skip", "raise"]
    max_update_to_lr: float | None
    master_weight_bits: Literal[16, 24, 32]
    state_bits: Literal[8, 16, 32]
    rounding_seed: int
    maximize: bool
    foreach: bool | None
    capturable: bool
    differentiable: bool


class ConfigureOptions(AdaBeliefOptions, total=False):
    """All options of ``configure_adabelief`` that say nothing about what it returns, as ``schedule`` does."""

    weight_decay: float
    decay_embeddings: bool
    layers: Mapping[str, Mapping[str, Any]] | None
    layer_decay: float | None
    decouple_lr: bool
    warmup: int | float | None
    rectify: bool | None
    schedule_interval: Literal["step", "epoch"]
    total_steps: int | None
    steps_per_batch: float | None
    trainer_steps_per_batch: float | None
    trainer: Any
    fused: bool | None
    release_gradients: bool

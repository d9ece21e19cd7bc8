"""``configure_adabelief`` as a config can name it: an optimizer class that stands for what it will make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from lightning_adabelief.configure.build import configure_adabelief


class ConfiguredAdaBelief(Optimizer):
    r"""All of :func:`configure_adabelief` for a ``LightningCLI``, where an optimizer is a class and its options.

    It takes the place of AdaBelief in ``--optimizer`` and in an ``OptimizerCallable``. Before training
    begins the Trainer's module is known, and what ``configure_adabelief(module, **options)`` makes
    replaces it. It does not train by itself.

    Args:
        params: All parameters of the module.
        lr: Learning rate (default: 1e-3).
        weight_decay: Of all but biases and norms (default: 0).
        decay_embeddings: Give ``nn.Embedding`` weight decay (default: True).
        layers: Options by layer: from a glob over the names of parameters to options.
        layer_decay: Factor of lr from a layer to the one below it (default: None, the same lr everywhere).
        decouple_lr: Have weight decay follow the schedule of lr, but not its size (default: False).
        warmup: An int is a number of steps; a float in (0, 1) a fraction of the run (default: None, chosen
            with ``rectify`` by the length of the run).
        rectify: Multiply the step by RAdam's r_t (default: None, chosen with ``warmup``).
        schedule: ``"cosine"`` or ``"linear"``, to 0 at the end of the run, or ``"step"``, to a tenth after
            three quarters of it (default: None).
        total_steps: Length of the run in optimizer steps, where it is not the Trainer's to know.
        betas: Decay rates of m_t and s_t (default: (0.9, 0.999)).
        eps: Added into s_t at each step, and to its root (default: 1e-16).
        amsgrad: Divide by the largest s_t so far (default: False).
        weight_decouple: Decay the weight itself, as AdamW does (default: True).
        fixed_decay: Do not multiply the decoupled decay by the learning rate (default: False).
        residual: See :class:`~lightning_adabelief.AdaBelief` (default: "updated").
        nonfinite: What becomes of a step with a gradient that is not finite: it is taken, skipped or an error
            (default: "propagate").
        max_update_to_lr: The most that a step moves any one weight, in multiples of lr (default: None).
        master_weight_bits: The bits that a step works on of a parameter in bfloat16 or float16 (default: 32).
        state_bits: The bits of each number of m_t and s_t: 32, 16 or 8 (default: 32).
        rounding_seed: Seed of the stochastic rounding of fewer bits (default: 0).
        foreach: Update lists of tensors at once (default: None).
        fused: Take the fused implementation (default: None, where it serves every parameter).
        release_gradients: Step each parameter within the backward pass and drop its gradient (default: False).

    Example::

        python main.py fit --optimizer=lightning_adabelief.ConfiguredAdaBelief \
            --optimizer.warmup=0.05 --optimizer.weight_decay=0.01 --optimizer.schedule=cosine
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.0,
        decay_embeddings: bool = True,
        layers: dict[str, dict[str, Any]] | None = None,
        layer_decay: float | None = None,
        decouple_lr: bool = False,
        warmup: int | float | None = None,
        rectify: bool | None = None,
        schedule: Literal["cosine", "linear", "step"] | None = None,
        total_steps: int | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        amsgrad: bool = False,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        residual: Literal["updated", "previous"] = "updated",
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        max_update_to_lr: float | None = None,
        master_weight_bits: Literal[16, 24, 32] = 32,
        state_bits: Literal[8, 16, 32] = 32,
        rounding_seed: int = 0,
        foreach: bool | None = None,
        fused: bool | None = None,
        release_gradients: bool = False,
    ) -> None:
        self.options: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "decay_embeddings": decay_embeddings,
            "layers": layers,
            "layer_decay": layer_decay,
            "decouple_lr": decouple_lr,
            "warmup": warmup,
            "rectify": rectify,
            "schedule": schedule,
            "total_steps": total_steps,
            "betas": tuple(betas),
            "eps": eps,
            "amsgrad": amsgrad,
            "weight_decouple": weight_decouple,
            "fixed_decay": fixed_decay,
            "residual": residual,
            "nonfinite": nonfinite,
            "max_update_to_lr": max_update_to_lr,
            "master_weight_bits": master_weight_bits,
            "state_bits": state_bits,
            "rounding_seed": rounding_seed,
            "foreach": foreach,
            "fused": fused,
            "release_gradients": release_gradients,
        }
        super().__init__(params, {"lr": lr})

    def configure(self, module: nn.Module, trainer: Any, **counting: Any) -> Any:
        """Make what this optimizer stands for.

        Args:
            module: The module whose parameters it was given.
            trainer: The Trainer.
            **counting: ``steps_per_batch`` and ``trainer_steps_per_batch``, see :func:`configure_adabelief`.

        Returns:
            The AdaBelief; with a schedule, Lightning's dictionary of both.

        Raises:
            ValueError: If it was given other parameters than the module's; else as ``configure_adabelief`` does.
        """
        given = {id(param) for group in self.param_groups for param in group["params"]}
        of_module = {id(param) for param in module.parameters()}
        if not {id(param) for param in module.parameters() if param.requires_grad} <= given <= of_module:
            raise ValueError(
                f"ConfiguredAdaBelief has {len(given)} parameters and {type(module).__name__} {len(of_module)}: it "
                "groups those of a whole module. For a part of one, call build_optimizer(optimizer, part, "
                "trainer=self.trainer) in configure_optimizers"
            )
        return configure_adabelief(module, trainer=trainer, **self.options, **counting)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Raise a RuntimeError: it is replaced before the first step, unless the package is not installed."""
        raise RuntimeError(
            "ConfiguredAdaBelief has not been replaced by an AdaBelief. Lightning's Trainer does that before training "
            "where lightning-adabelief is installed (pip install lightning-adabelief); elsewhere call "
            "configure_adabelief(self, ...) in configure_optimizers"
        )

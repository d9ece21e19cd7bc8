"""Numbers of a config against what their class can do with them, told before anything is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from lightning_adabelief.config_file import read_number

ANY, FINITE = "a number >= {}", "a finite number >= {}"
WHOLE = "a whole number >= {}"

LEAST: dict[str, dict[str, tuple[float, str]]] = {
    "AdaBelief": {"lr": (0, FINITE), "eps": (0, FINITE), "weight_decay": (0, FINITE)},
    "Trainer": {
        "accumulate_grad_batches": (1, WHOLE),
        "check_val_every_n_epoch": (1, WHOLE),
        "gradient_clip_val": (0, ANY),
        "limit_predict_batches": (0, ANY),
        "limit_test_batches": (0, ANY),
        "limit_train_batches": (0, ANY),
        "limit_val_batches": (0, ANY),
        "log_every_n_steps": (0, f"{WHOLE}, where 0 is never"),
        "max_epochs": (-1, f"{WHOLE}, where -1 is no limit"),
        "max_steps": (-1, f"{WHOLE}, where -1 is no limit"),
        "min_epochs": (0, WHOLE),
        "min_steps": (0, WHOLE),
        "num_nodes": (1, WHOLE),
        "num_sanity_val_steps": (-1, f"{WHOLE}, where -1 is all"),
        "overfit_batches": (0, ANY),
        "reload_dataloaders_every_n_epochs": (0, WHOLE),
        "val_check_interval": (1e-12, "above 0: a fraction of an epoch, or a whole number of batches"),
    },
    "CosineAnnealingLR": {"T_max": (1, WHOLE)},
    "CosineAnnealingWarmRestarts": {"T_0": (1, WHOLE), "T_mult": (1, WHOLE)},
    "CyclicLR": {"step_size_up": (1, WHOLE), "step_size_down": (1, WHOLE)},
    "PolynomialLR": {"total_iters": (1, WHOLE)},
    "ReduceLROnPlateau": {"patience": (0, WHOLE), "cooldown": (0, WHOLE)},
    "StepLR": {"step_size": (1, WHOLE)},
}
"""From a class and its argument to the least number, and to what is allowed in words."""

PACKAGES = ("lightning_adabelief.", "pytorch_lightning.", "lightning.", "torch.")
"""The packages of the classes of :data:`LEAST`; a class of the user's may have the same name."""


def list_out_of_range(class_name: str, module: str, given: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """List the numbers that a class can't take.

    Args:
        class_name: The class.
        module: The module that defines it.
        given: Its arguments, as a config or a command line gives them.

    Yields:
        The argument's name, what is allowed, and the value.
    """
    if not module.startswith(PACKAGES):
        return
    for name, (least, allowed) in LEAST.get(class_name, {}).items():
        number = read_number(given.get(name))
        if number is None or (number >= least and (allowed is not FINITE or math.isfinite(number))):
            continue
        yield name, allowed.format(least), given[name]
    betas = given.get("betas") if class_name == "AdaBelief" else None
    numbers = [read_number(beta) for beta in betas] if isinstance(betas, list) else []
    if any(number is not None and not 0 <= number < 1 for number in numbers):
        yield "betas", "two numbers in [0, 1), such as [0.9, 0.999]", betas

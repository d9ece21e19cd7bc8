"""The plan of a comparison: what is trained, with which optimizers, and how a winner is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lightning_adabelief.comparison.contenders import Contender


@dataclass(frozen=True)
class Plan:
    """All that a comparison depends on; a folder holds the trials of one plan.

    Attributes:
        config: The config as it was named: a recipe or a file.
        settings: Its content, merged with ``--set``; each trial's config is made from it.
        places: Keys of the optimizers that are varied, such as ``model.init_args.optimizer``.
        contenders: The optimizers. The first one is what the others are compared with.
        relative_rates: The grid of learning rates, as multiples of each contender's usual one.
        weight_decays: The grid of weight decays.
        tuning_seeds: Seeds that learning rate and weight decay are chosen on.
        report_seeds: Seeds of the report, none of them among the tuning seeds.
        metric: The validation metric that checkpoints, rates and decays are chosen by.
        mode: ``"min"`` or ``"max"``: which is better.
        test_metric: The test metric that is reported; None where there is no test, and ``metric`` is reported.
        warmup: Steps, or a fraction of the run, over which every optimizer's learning rate grows linearly.
        unequal: Sentences on what is not equal between the contenders.
    """

    config: str
    settings: dict[str, Any]
    places: tuple[str, ...]
    contenders: tuple[Contender, ...]
    relative_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    metric: str
    mode: Literal["min", "max"]
    test_metric: str | None
    warmup: float
    unequal: tuple[str, ...] = ()

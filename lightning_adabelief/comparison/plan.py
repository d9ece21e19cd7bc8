"""The plan of a comparison: what is trained, with which optimizers, and how a winner is found."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_adabelief.comparison.contenders import Contender, OptimizerNode, make_contenders
from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.comparison.places import Place, choose_place, find_places, find_test_metric

LEAST_RATIO = 1.001
"""The ratio of two neighbours in a grid, at least: the names of their trials have four digits."""

RELATIVE_RATES = (0.1, 0.32, 1.0, 3.2, 10.0)
"""The grid of learning rates, as multiples of each optimizer's usual one, where none is given."""

FAR_FROM_USUAL = 20.0
"""A multiple, or its inverse, that a grid of learning rates does not lie beyond: it would be one of absolute rates."""

OWN_RATES = ("OneCycleLR", "CyclicLR")
"""Schedules that take their learning rates from their own arguments, whatever the optimizer's is."""

FIRST_TUNING_SEED = 1000
"""The first of the seeds that learning rates are chosen on; the report's begin at 0."""


@dataclass(frozen=True)
class Plan:
    """All that a comparison depends on; a folder holds the trials of one plan.

    Attributes:
        config: The config as it was named: a recipe or a file.
        settings: Its content, merged with ``--set``; each trial's config is made from it.
        places: The keys that lead to each optimizer that is varied.
        lr_ratios: For each place, the config's learning rate there over that of the first place.
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
    places: tuple[Place, ...]
    lr_ratios: tuple[float, ...]
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

    @property
    def identifier(self) -> str:
        """A digest of the plan, the same for the same plan."""
        return hashlib.sha256(json.dumps(_list_choices(self)).encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from :meth:`to_json`'s text."""
        values = json.loads(text)
        contenders = tuple(Contender(**contender) for contender in values.pop("contenders"))
        places = tuple(tuple(place) for place in values.pop("places"))
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples}, contenders=contenders, places=places)

    def find_contender(self, name: str) -> Contender:
        """Return the contender of a name."""
        return next(contender for contender in self.contenders if contender.name == name)


def make_plan(
    config: str,
    settings: Mapping[str, Any],
    optimizers: Sequence[str | Mapping[str, Any]],
    *,
    seeds: int = 5,
    tuning_seeds: int = 1,
    relative_rates: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    vary: str | None = None,
) -> Plan:
    """Make the plan of a comparison.

    Args:
        config: The config as it was named.
        settings: Its content, with all overrides.
        optimizers: See :func:`lightning_adabelief.comparison.contenders.make_contenders`.
        seeds: The number of seeds that the report is on.
        tuning_seeds: The number of others that learning rates are chosen on.
        relative_rates: The grid of learning rates, as multiples of each optimizer's usual one; None for
            :data:`RELATIVE_RATES`.
        weight_decays: The grid of weight decays; None for the config's.
        metric: The validation metric to choose by; None for the one by which the config chooses its checkpoint.
        mode: ``"min"`` or ``"max"``; None for the config's.
        vary: The key of the one optimizer to vary where there are several; None for all.

    Raises:
        PlanError: If the comparison is not possible.
    """
    places, settings = (find_places(settings), settings) if vary is None else choose_place(vary, settings)
    configured = next(iter(places.values()))
    contenders = make_contenders(optimizers, configured)
    decays = _check_grid("weight decay", weight_decays or (configured.weight_decay,), least=0.0)
    rates = _check_grid("learning rate", relative_rates or RELATIVE_RATES)
    if not (rates[0] <= FAR_FROM_USUAL and rates[-1] >= 1 / FAR_FROM_USUAL):
        raise PlanError(
            f"The learning rates of the grid, {', '.join(f'{rate:g}' for rate in rates)}, are multiples of each "
            f"optimizer's usual one ({contenders[0].usual_lr:g} for {contenders[0].name}), and none is near 1. Give "
            "multiples, such as 0.3,1,3"
        )
    for name, count in {"seeds": seeds, "tuning seeds": tuning_seeds}.items():
        if not (isinstance(count, int) and 1 <= count <= FIRST_TUNING_SEED):
            raise PlanError(f"The number of {name} is {count!r}. Give a whole number from 1 to {FIRST_TUNING_SEED}")
    metric, mode = _choose_metric(settings, metric, mode)
    _check_schedules(settings)
    return Plan(
        config=config,
        settings=copy.deepcopy(dict(settings)),
        places=tuple(places),
        lr_ratios=tuple(float(f"{node.lr / configured.lr:.6g}") for node in places.values()),
        contenders=contenders,
        relative_rates=rates,
        weight_decays=decays,
        tuning_seeds=tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + tuning_seeds)),
        report_seeds=tuple(range(seeds)),
        metric=metric,
        mode=mode,
        test_metric=find_test_metric(settings, metric),
        warmup=_read_warmup(configured),
        unequal=tuple(_list_unequal(contenders, decays, configured)),
    )


def find_differences(old: Plan, new: Plan) -> list[str]:
    """Return a line for each setting in which two plans differ, such as ``"report_seeds: [0, 1], now [0, 1, 2]"``."""
    before, after = (_flatten(_list_choices(plan)) for plan in (old, new))
    keys = dict.fromkeys([*before, *after])
    return [
        f"{key}: {json.dumps(before.get(key))}, now {json.dumps(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _list_choices(plan: Plan) -> dict[str, Any]:
    """Return a plan without what follows from the rest, and the contenders with their names as a choice of its own."""
    values = json.loads(plan.to_json())
    del values["unequal"]
    options = {contender["name"]: contender for contender in values.pop("contenders")}
    return {"optimizers": list(options), **values, **{f"optimizer {name}": value for name, value in options.items()}}


def find_unfinished_schedule(settings: Mapping[str, Any]) -> str | None:
    """Return a sentence where a cosine's length in epochs is not the run's, as after ``--set trainer.max_epochs``."""
    model = settings.get("model")
    arguments = (model.get("init_args") or {}) if isinstance(model, Mapping) else {}
    scheduler = settings.get("lr_scheduler") or arguments.get("lr_scheduler") or {}
    t_max = (scheduler.get("init_args") or {}).get("T_max") if isinstance(scheduler, Mapping) else None
    epochs = (settings.get("trainer") or {}).get("max_epochs")
    if t_max in (None, epochs) or epochs is None or arguments.get("lr_scheduler_interval") == "step":
        return None
    return (
        f"The schedule's T_max is {t_max} and the run has {epochs} epochs: the learning rate does not end where it "
        "would. Set both, as in --set trainer.max_epochs=10 model.lr_scheduler.T_max=10"
    )


def _check_schedules(node: Any) -> None:
    """Check that no schedule sets learning rates of its own: those that are compared would do nothing."""
    if isinstance(node, Mapping):
        name = str(node.get("class_path")).rpartition(".")[2]
        if name in OWN_RATES:
            raise PlanError(
                f"The config's {name} sets learning rates of its own, whatever the optimizer's is: none can be chosen. "
                "Put a schedule in its place that multiplies the optimizer's, such as CosineAnnealingLR"
            )
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        _check_schedules(value)


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted keys."""
    if not (isinstance(node, dict) and node):
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _check_grid(name: str, values: Sequence[float], least: float | None = None) -> tuple[float, ...]:
    """Return a grid sorted, each value once."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise PlanError(f"The {name}s of the grid are {values!r}. Give a list of numbers")
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < 0 or (least is None and value == 0):
            allowed = "above 0" if least is None else "of 0 or more"
            raise PlanError(f"A {name} of the grid is {value!r}. Give numbers {allowed}")
    grid = tuple(sorted({float(value) for value in values}))
    for smaller, larger in itertools.pairwise(grid):
        if larger < LEAST_RATIO * smaller:
            raise PlanError(
                f"Two {name}s of the grid, {smaller!r} and {larger!r}, are nearly the same. Give one of them"
            )
    return grid


def _choose_metric(
    settings: Mapping[str, Any], metric: str | None, mode: str | None
) -> tuple[str, Literal["min", "max"]]:
    """Return the metric to choose by: the one given, or that of the config's first ModelCheckpoint that has one."""
    monitored = [
        arguments
        for name, arguments in list_callbacks(settings)
        if name == "ModelCheckpoint" and arguments.get("monitor")
    ]
    if metric is None:
        if not monitored:
            raise PlanError(
                "The config has no ModelCheckpoint with a monitor, so it does not say what is best. "
                "Give --metric, such as --metric val_loss, and --mode min or max"
            )
        metric = str(monitored[0]["monitor"])
        mode = mode or monitored[0].get("mode", "min")
    elif mode is None:
        modes = [arguments.get("mode", "min") for arguments in monitored if arguments["monitor"] == metric]
        if not modes:
            raise PlanError(f"Is a smaller {metric} better, or a larger one? Give --mode min or --mode max")
        mode = modes[0]
    if mode not in ("min", "max"):
        raise PlanError(f"The mode is {mode!r}. Give min if a smaller {metric} is better, or max")
    return metric, mode  # type: ignore[return-value]


def list_callbacks(settings: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List a config's callbacks: the name of each class without its module, and its arguments."""
    callbacks = (settings.get("trainer") or {}).get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    nodes: list[Any] = [{"class_path": node} if isinstance(node, str) else node for node in callbacks]
    return [(str(node["class_path"]).rpartition(".")[2], dict(node.get("init_args") or {})) for node in nodes]


def _read_warmup(configured: OptimizerNode) -> float:
    """Return the warmup of the config's AdaBelief, which all contenders get; 0 for another optimizer's."""
    warmup = configured.options.get("warmup") or 0
    return warmup if isinstance(warmup, int | float) else 0


def _list_unequal(contenders: Sequence[Contender], decays: Sequence[float], configured: OptimizerNode) -> list[str]:
    """List what is not equal, as sentences."""
    sentences = []
    if any(decays):
        kind = {True: "decoupled (on the weight)", False: "coupled (L2, on the gradient)"}
        others = [contender.name for contender in contenders if contender.is_decoupled != configured.is_decoupled]
        if others:
            sentences.append(
                f"Weight decay is {kind[configured.is_decoupled]}, but that of {', '.join(others)} is "
                f"{kind[not configured.is_decoupled]}."
            )
        without = [contender.name for contender in contenders if contender.weight_decay_factor is None]
        if without:
            sentences.append(f"{', '.join(without)} {'have' if len(without) > 1 else 'has'} no weight decay.")
        scaled = [
            f"{c.name} by {c.weight_decay_factor:g}" for c in contenders if c.weight_decay_factor not in (None, 1)
        ]
        if scaled:
            sentences.append(
                "The weight decay is multiplied where the usual learning rate or momentum differs, so that at the "
                f"usual rate a step shrinks weights as much as with the config's own: {', '.join(scaled)}."
            )
    rectified = [c.name for c in contenders if c.init_args.get("rectify") or c.class_path.endswith(".RAdam")]
    if rectified and len(rectified) < len(contenders):
        sentences.append(f"Only the steps of {', '.join(rectified)} are rectified, which is a kind of warmup.")
    own = [c.name for c in contenders if c.init_args.get("warmup")]
    if own:
        sentences.append(f"{', '.join(own)} {'have warmups' if len(own) > 1 else 'has a warmup'} that others lack.")
    lacking = [c.name for c in contenders if not c.init_args.get("fused")]
    if 0 < len(lacking) < len(contenders):
        sentences.append(f"The steps of {', '.join(lacking)} are not fused; those of the others are.")
    return sentences

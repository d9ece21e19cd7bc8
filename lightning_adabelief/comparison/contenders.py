"""The optimizers that are compared: each with its usual learning rate and every option spelled out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.config_file import convert_number, read_number
from lightning_adabelief.optim.like import noise_matching_factor
from lightning_adabelief.suggest import suggest

ADABELIEF = "lightning_adabelief.AdaBelief"


@dataclass(frozen=True)
class KnownOptimizer:
    """An optimizer that has a name of its own here.

    Attributes:
        class_path: Its class.
        usual_lr: The learning rate that people begin with, where Adam's is 1e-3.
        init_args: Options that set it apart from others of its class.
    """

    class_path: str
    usual_lr: float = 1e-3
    init_args: Mapping[str, Any] | None = None


KNOWN: dict[str, KnownOptimizer] = {
    "adabelief": KnownOptimizer(ADABELIEF),
    "adabelief-matched": KnownOptimizer(ADABELIEF),
    "adam": KnownOptimizer("torch.optim.Adam"),
    "adamw": KnownOptimizer("torch.optim.AdamW"),
    "radam": KnownOptimizer("torch.optim.RAdam"),
    "nadam": KnownOptimizer("torch.optim.NAdam"),
    "rmsprop": KnownOptimizer("torch.optim.RMSprop"),
    "sgd": KnownOptimizer("torch.optim.SGD", 0.1),
    "sgd-nesterov": KnownOptimizer("torch.optim.SGD", 0.1, {"nesterov": True}),
}
"""The optimizers that can be named in a word. ``adabelief-matched`` is AdaBelief with learning rates at which it moves
as far as Adam on pure noise."""

DECOUPLING_OPTIONS = ("weight_decouple", "decoupled_weight_decay")
"""Options that choose the kind of weight decay: AdaBelief's, and those of torch.optim."""

SHARED_OPTIONS = ("betas", "amsgrad", "maximize", "foreach", "fused", "capturable")
"""Options of the config's optimizer that the others get too, where they have them."""

NOT_A_CHOICE = ("params", "lr", "weight_decay", "total_steps")
"""Arguments that are set a trial, or by the run itself."""


@dataclass(frozen=True)
class OptimizerNode:
    """An optimizer as a config has it: the class, and its options with the defaults of those that are not given.

    Attributes:
        class_path: The class's full path.
        given: The options of the config.
        options: All options.
    """

    class_path: str
    given: dict[str, Any]
    options: dict[str, Any]

    @property
    def lr(self) -> float:
        """The learning rate, or the usual one of the class."""
        return read_number(self.options.get("lr")) or _find_usual_lr(self.class_path, self.options)

    @property
    def weight_decay(self) -> float:
        """The weight decay."""
        return read_number(self.options.get("weight_decay")) or 0.0

    @property
    def is_decoupled(self) -> bool:
        """True if the weight decay acts on the weight, as AdamW's, and not on the gradient."""
        chosen = [bool(self.options[name]) for name in DECOUPLING_OPTIONS if name in self.options]
        return chosen[0] if chosen else self.class_path.rpartition(".")[2].endswith("W")

    @property
    def beta1(self) -> float:
        """The decay rate of the momentum; of an optimizer that has none, the usual 0.9."""
        if "betas" in self.options:
            return float(self.options["betas"][0])
        return read_number(self.options.get("momentum")) or 0.9


@dataclass(frozen=True)
class Contender:
    """An optimizer that takes part in a comparison.

    Attributes:
        name: Its name in tables: ``"adabelief"``, or one that the user gave.
        class_path: Its class.
        init_args: All its options but ``lr`` and ``weight_decay``, defaults included.
        usual_lr: The learning rate that the relative ones are multiples of.
        weight_decay_factor: What the plan's weight decay is multiplied by for this optimizer; None if it has none.
    """

    name: str
    class_path: str
    init_args: dict[str, Any]
    usual_lr: float
    weight_decay_factor: float | None = 1.0

    @property
    def slug(self) -> str:
        """The name as the name of a file has it."""
        return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in self.name)

    @property
    def is_decoupled(self) -> bool:
        """True if the weight decay acts on the weight, as AdamW's, and not on the gradient."""
        return OptimizerNode(self.class_path, {}, self.init_args).is_decoupled


def read_optimizer(class_path: str, init_args: Mapping[str, Any]) -> OptimizerNode:
    """Read an optimizer of a config.

    Args:
        class_path: Its class, also by the name alone of a class of torch.optim or of AdaBelief.
        init_args: Its options.

    Raises:
        PlanError: If there is no such class, or it has no such option.
    """
    full_path, cls = find_class(class_path)
    parameters = _list_options(cls)
    unknown = [name for name in init_args if name not in parameters]
    if unknown:
        raise PlanError(f"{class_path} has no option {unknown[0]!r}. {suggest(unknown[0], parameters)}")
    options = {**parameters, **{name: _make_plain(value) for name, value in init_args.items()}}
    return OptimizerNode(full_path, dict(init_args), options)


def find_class(class_path: str) -> tuple[str, type[torch.optim.Optimizer]]:
    """Find an optimizer's class, and its full path; of a class with several paths, the one in :data:`KNOWN`.

    Raises:
        PlanError: If it can't be imported or is no optimizer.
    """
    module_name, _, name = class_path.rpartition(".")
    if not module_name:
        module_name = "lightning_adabelief" if name in ("AdaBelief", "ConfiguredAdaBelief") else "torch.optim"
    try:
        cls = getattr(import_module(module_name), name)
    except Exception as error:
        raise PlanError(
            f"The optimizer {class_path!r} can't be imported: {type(error).__name__}: {error}. Give a name of "
            f"{', '.join(KNOWN)}, or the path of a class"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise PlanError(f"The optimizer {class_path!r} is {cls!r}, and not a class derived from torch.optim.Optimizer")
    known = [path for path in dict.fromkeys(known.class_path for known in KNOWN.values()) if _is_path_of(path, cls)]
    return (known or [f"{module_name}.{name}"])[0], cls


def _is_path_of(path: str, cls: type) -> bool:
    module_name, _, name = path.rpartition(".")
    return getattr(import_module(module_name), name) is cls


def make_contenders(specs: Sequence[str | Mapping[str, Any]], configured: OptimizerNode) -> tuple[Contender, ...]:
    """Make the contenders of a comparison.

    Args:
        specs: Names of :data:`KNOWN`, class paths, or mappings of ``class_path`` (either of the two), ``init_args``
            and ``name``.
        configured: The config's own optimizer, whose momentum, kind of weight decay and learning rate the others
            follow.

    Raises:
        PlanError: If there are fewer than two, one is not possible, or two have the same name, or the same folders.
    """
    if isinstance(specs, str):
        raise PlanError(f"The optimizers are {specs!r}. Give a list, such as {specs.split(',')}")
    contenders = tuple(_make_contender(spec, configured) for spec in specs)
    names = [contender.name for contender in contenders]
    slugs = [contender.slug.casefold() for contender in contenders]  # as on disks that do not tell A from a
    for name, slug in zip(names, slugs, strict=True):
        if slugs.count(slug) > 1:
            alike = "" if names.count(name) > 1 else ", or so that the folders of their runs would have the same name"
            raise PlanError(
                f"There are {slugs.count(slug)} optimizers named {name!r}{alike}. Give names: {{name: other, "
                "class_path: ...}"
            )
    if len(contenders) < 2:
        raise PlanError(f"There is nothing to compare {', '.join(names) or 'with'}. Give at least two optimizers")
    return contenders


def _make_contender(spec: str | Mapping[str, Any], configured: OptimizerNode) -> Contender:
    spec = {"class_path": spec} if isinstance(spec, str) else spec
    is_mapping = isinstance(spec, Mapping) and not set(spec) - {"name", "class_path", "init_args"}
    if not (is_mapping and isinstance(spec.get("class_path"), str)):
        raise PlanError(f"An optimizer is a name, or a mapping of class_path, init_args and name. Got {spec!r:.120}")
    path, given = spec["class_path"], dict(spec.get("init_args") or {})
    if "." not in path and path not in KNOWN and not hasattr(torch.optim, path):
        raise PlanError(f"Unknown optimizer: {path!r}. {suggest(path, KNOWN)} Any other is given by its class path")
    if "weight_decay" in given:
        raise PlanError(f"Give the weight decay by --weight-decay, alike for all, and not among the options of {path}")
    known = KNOWN.get(path, KnownOptimizer(path))
    node = read_optimizer(known.class_path, {**(known.init_args or {}), **given})
    options = _follow_config(node, configured)
    usual_lr = read_number(given.pop("lr", None)) or _scale_usual_lr(node, configured)
    if path == "adabelief-matched":
        usual_lr *= noise_matching_factor(options["betas"][0], options["residual"])
    name = spec.get("name") or (path if path in KNOWN else path.rpartition(".")[2])
    factor = _find_decay_factor(node.class_path, options, configured) if "weight_decay" in node.options else None
    return Contender(str(name), node.class_path, options, float(f"{usual_lr:.4g}"), factor)


def _follow_config(node: OptimizerNode, configured: OptimizerNode) -> dict[str, Any]:
    """Return all options: those given, then those of the config's optimizer that mean the same, then defaults."""
    options = {name: value for name, value in node.options.items() if name not in NOT_A_CHOICE}
    same_class = node.class_path == configured.class_path
    shared = options if same_class else [name for name in SHARED_OPTIONS if name in options]
    options |= {name: configured.options[name] for name in shared if name in configured.options}
    if node.class_path == ADABELIEF:
        if not same_class:
            options["rectify"] = False  # so that it differs from Adam in belief alone
        options["warmup"] = 0  # all contenders have the same one, from a callback
    if node.class_path == KNOWN["sgd"].class_path and (not same_class or node.given.get("nesterov")):
        options["momentum"] = configured.beta1
    for name in DECOUPLING_OPTIONS:
        if name in options and not node.class_path.endswith(".Adam"):  # Adam that decouples it would be AdamW
            options[name] = configured.is_decoupled
    return options | {name: value for name, value in node.given.items() if name not in NOT_A_CHOICE}


def _scale_usual_lr(node: OptimizerNode, configured: OptimizerNode) -> float:
    """Return the learning rate that corresponds to the config's: as many times as large as is usual."""
    configured_usual = _find_usual_lr(configured.class_path, configured.options)
    return _find_usual_lr(node.class_path, node.options) * configured.lr / configured_usual


def _find_usual_lr(class_path: str, options: Mapping[str, Any]) -> float:
    """Return the learning rate that people begin with, or of a class not known here the class's default."""
    usual = [known.usual_lr for known in KNOWN.values() if known.class_path == class_path]
    if usual:
        return usual[0]
    _, cls = find_class(class_path)
    return read_number(_list_options(cls).get("lr")) or 1e-3


def _find_decay_factor(class_path: str, options: Mapping[str, Any], configured: OptimizerNode) -> float:
    """Return what the weight decay of the config's optimizer is multiplied by for another one.

    Two optimizers that add the decay to the gradient have the same loss with the same decay. Otherwise a step at the
    usual rate shall shrink weights by as much.
    """
    if not (configured.is_decoupled or OptimizerNode(class_path, {}, dict(options)).is_decoupled):
        return 1.0
    shrinkage = _find_shrinkage(configured.class_path, configured.options) / _find_shrinkage(class_path, options)
    return float(f"{shrinkage:.4g}")


def _find_shrinkage(class_path: str, options: Mapping[str, Any]) -> float:
    """Return by how much a step at the usual rate shrinks weights, for a weight decay of 1.

    A step of decoupled decay shrinks weights by lr * weight_decay, and one of SGD with momentum, in the long run, by
    lr * weight_decay / (1 - momentum).
    """
    is_sgd = class_path == KNOWN["sgd"].class_path
    return _find_usual_lr(class_path, options) / (1 - float((options.get("momentum") or 0) if is_sgd else 0))


def _list_options(cls: type) -> dict[str, Any]:
    """Return the arguments of an optimizer's class with their defaults; one without a default has None."""
    parameters = list(inspect.signature(cls).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "params"]
    return {p.name: None if p.default is p.empty else _make_plain(p.default) for p in named}


def _make_plain(value: Any) -> Any:
    """Return an option as JSON has it: a tuple as a list, and ``1e-3``, which YAML takes for text, as a number."""
    if isinstance(value, list | tuple):
        return [_make_plain(item) for item in value]
    return convert_number(value)

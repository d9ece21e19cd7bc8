"""Places of a config where an optimizer stands, and can be put in another's place."""

from __future__ import annotations

import copy
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import torch

from lightning_adabelief.comparison.contenders import OptimizerNode, read_optimizer
from lightning_adabelief.comparison.errors import PlanError
from lightning_adabelief.lightning_tree import OptimizerCallable
from lightning_adabelief.suggest import suggest

Place = tuple[str, ...]
"""Keys that lead to an optimizer: ``("model", "init_args", "optimizer")``."""

DEFAULT_OPTIMIZER = "torch.optim.Adam"
"""The class whose options the contenders follow where neither config nor module names an optimizer."""


def find_places(settings: Mapping[str, Any]) -> dict[Place, OptimizerNode]:
    """Find the optimizers of a config.

    They are LightningCLI's own ``optimizer``, or those among the model's arguments, with their defaults where the
    config does not name them; or LightningCLI's own, if the model does not make an optimizer by itself.

    Args:
        settings: The config.

    Returns:
        From the place to the optimizer that the config has there. An argument that is None, by which a module may
        mean that it takes the other optimizer, is not among them.

    Raises:
        PlanError: If there is none.
    """
    if settings.get("optimizer"):
        return {("optimizer",): _read_node(settings["optimizer"])}
    path, arguments = _read_model(settings)
    cls = _import_class(path)
    takers = _list_optimizer_arguments(cls)
    arguments |= {name: {"class_path": arguments[name]} for name in takers if isinstance(arguments.get(name), str)}
    named: dict[Place, OptimizerNode] = {("model", "init_args", *place): node for place, node in _walk(arguments)}
    defaults: dict[Place, OptimizerNode] = {
        ("model", "init_args", name): node for name, node in _list_defaults(cls) if name not in arguments
    }
    found = named | defaults
    if found:
        return found
    if takers:
        raise PlanError(
            f"Neither the config nor {path} says which optimizer it trains with. Name one in the config, or by --set "
            f"model.{takers[0]}=torch.optim.Adam"
        )
    if _overrides(cls, "configure_optimizers"):
        raise PlanError(
            f"{path} makes its own optimizer, whatever the config says. Give its __init__ an argument optimizer: "
            "OptimizerCallable (from lightning.pytorch.cli or pytorch_lightning.cli), and let configure_optimizers "
            "return self.optimizer(self.parameters())"
        )
    return {("optimizer",): read_optimizer(DEFAULT_OPTIMIZER, {})}


def choose_place(vary: str, settings: Mapping[str, Any]) -> tuple[dict[Place, OptimizerNode], dict[str, Any]]:
    """Choose one of several optimizers to vary, such as ``generator_optimizer``; the others stay.

    Args:
        vary: Its key.
        settings: The config.

    Returns:
        The place with the optimizer that the config has there; and the config, in which arguments for an optimizer
        that were None name what they stood for: the first one.

    Raises:
        PlanError: If there is none of that key.
    """
    path, arguments = _read_model(settings)
    found = find_places(settings)
    first = next(iter(found.values()))
    spelled_out = copy.deepcopy(dict(settings))
    if isinstance(spelled_out["model"], str):
        spelled_out["model"] = {"class_path": spelled_out["model"]}
    for name in _list_optimizer_arguments(_import_class(path)):
        if arguments.get(name) is None and ("model", "init_args", name) not in found:
            node = {"class_path": first.class_path, "init_args": dict(first.given)}
            spelled_out["model"].setdefault("init_args", {})[name] = node
    found = find_places(spelled_out)
    chosen = {place: node for place, node in found.items() if place[-1] == vary}
    if not chosen:
        raise PlanError(f"The config has no optimizer {vary!r} to vary. {suggest(vary, [p[-1] for p in found])}")
    return chosen, spelled_out


def find_test_metric(settings: Mapping[str, Any], metric: str) -> str | None:
    """Return the test's counterpart of a validation metric, as ``test/loss`` of ``val/loss`` or ``loss/val``.

    Args:
        settings: The config, which names model and data.
        metric: The validation metric.

    Returns:
        The name; None where there is no test, or ``val`` is no word of the metric's name.
    """
    module = _import_class(_read_model(settings)[0])
    data = settings.get("data")
    path = data.get("class_path", "") if isinstance(data, Mapping) else data
    owner = _import_class(path) if path else module
    if not (_overrides(module, "test_step") and _overrides(owner, "test_dataloader")):
        return None
    name = re.sub(r"(?<![a-z])(validation|valid|val)(?![a-z])", "test", metric, count=1)
    return name if name != metric else None


def _read_model(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the model's class path and its arguments."""
    model = settings.get("model")
    model = model if isinstance(model, Mapping) else {"class_path": model}
    if not model.get("class_path"):
        raise PlanError(
            "The config does not name the model's class, which some script knows. Name it, and its arguments below: "
            "model: {class_path: my_module.MyModel, init_args: {...}}; and so for data"
        )
    return str(model["class_path"]), dict(model.get("init_args") or {})


def _overrides(cls: type, method: str) -> bool:
    """Return True if a module or DataModule has a method of its own, in either of Lightning's class trees."""
    bases = [kind for kind in cls.__mro__ if kind.__module__.split(".")[0] in ("lightning", "pytorch_lightning")]
    inherited = [vars(kind)[method] for kind in bases if method in vars(kind)]
    return getattr(cls, method, None) not in (None, *inherited)


def _walk(node: Any, place: Place = ()) -> Iterator[tuple[Place, OptimizerNode]]:
    """Iterate over the optimizers in a config, and their places."""
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get("class_path"), str) and _is_optimizer(node["class_path"]):
        yield place, _read_node(node)
        return
    for key, value in node.items():
        if isinstance(value, str) and "optimizer" in str(key) and _is_optimizer(value):
            yield (*place, str(key)), _read_node(value)
        else:
            yield from _walk(value, (*place, str(key)))


def _read_node(node: Any) -> OptimizerNode:
    if isinstance(node, str):
        node = {"class_path": node}
    read = read_optimizer(node["class_path"], node.get("init_args") or {})
    if read.class_path.endswith(".ConfiguredAdaBelief"):
        raise PlanError(
            "The config's ConfiguredAdaBelief has groups and a schedule of its own, which other optimizers can't have. "
            "Put lightning_adabelief.AdaBelief and an lr_scheduler in its place, and compare these"
        )
    return read


def _is_optimizer(class_path: str) -> bool:
    """Return True for the path of an optimizer's class; the name alone is of torch.optim or AdaBelief's."""
    module_name, _, name = class_path.rpartition(".")
    try:
        owner = import_module(module_name or "torch.optim")
    except Exception:  # a module that can't be imported is reported where it is needed
        return False
    cls = getattr(owner, name, None)
    return class_path == "AdaBelief" or (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer))


def _list_defaults(cls: type) -> Iterator[tuple[str, OptimizerNode]]:
    """Iterate over the arguments of a model that take an optimizer, with the optimizer that is their default."""
    for name in _list_optimizer_arguments(cls):
        default = inspect.signature(cls).parameters[name].default
        given = dict(getattr(default, "keywords", {}))
        default = getattr(default, "func", default)
        if isinstance(default, type) and default is not inspect.Parameter.empty:
            yield name, read_optimizer(f"{default.__module__}.{default.__qualname__}", given)


def _list_optimizer_arguments(cls: type) -> list[str]:
    """List the arguments of a model whose type is OptimizerCallable."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except Exception:  # a hint that can't be resolved, which is the user's own affair
        return []
    return [
        name for name, hint in hints.items() if name != "return" and OptimizerCallable in (hint, *typing.get_args(hint))
    ]


def _import_class(path: str) -> type:
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module_name), name)
    except Exception as error:
        raise PlanError(f"{path or 'The model'} can't be imported: {type(error).__name__}: {error}") from error

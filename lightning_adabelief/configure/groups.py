"""A module's parameters, named and sorted into param groups by weight decay and by options of their own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_adabelief.configure.layer_depth import levels_below_top
from lightning_adabelief.configure.weight_decay import undecayed_parameters
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.names import parameter_names, plain_name
from lightning_adabelief.optim.options import check_values
from lightning_adabelief.suggest import suggest

OPTIONS = frozenset(inspect.signature(AdaBelief).parameters) - {"params", "print_change_log"}
"""The names of AdaBelief's options, each of which a param group may set."""

Named = list[tuple[str, Tensor]]
Layers = Mapping[str, Mapping[str, Any]]


class _GroupKey(NamedTuple):
    """Properties that a group's parameters share; those that differ in one are in different groups."""

    globs: tuple[str, ...]
    """The globs of ``layers`` that match."""
    depth: str
    """``"depth03"`` where lr is that of a depth; empty where it is the common one, or a glob's."""
    decay: str
    """``"decayed"`` or ``"undecayed"``; empty where nothing would be decayed anyway."""


def named_parameters(module: nn.Module) -> tuple[Named, Named]:
    """Name a module's parameters, without what FSDP, ``torch.compile`` and parametrizations put into the names.

    Args:
        module: Any module.

    Returns:
        The parameters that are trained, and those that are frozen (``requires_grad=False``).

    Raises:
        ValueError: If none is trained.
    """
    named: Named = [(plain_name(name), param) for name, param in module.named_parameters()]
    trained = [(name, param) for name, param in named if param.requires_grad]
    if not trained:
        what = f"all {len(named)} parameters are frozen" if named else "there is no parameter"
        raise ValueError(f"{type(module).__name__} has nothing to train: {what}. Unfreeze some (requires_grad=True)")
    return trained, [(name, param) for name, param in named if not param.requires_grad]


def param_groups(
    module: nn.Module,
    named: Named,
    *,
    lr: float | Tensor,
    weight_decay: float,
    decay_embeddings: bool,
    layers: Layers,
    layer_decay: float | None,
) -> list[dict[str, Any]]:
    """Sort a module's trained parameters into param groups.

    Args:
        module: The module.
        named: Its trained parameters (:func:`named_parameters`).
        lr: The learning rate of the top layers, where ``layer_decay`` is given.
        weight_decay: The weight decay of parameters for which ``layers`` gives none.
        decay_embeddings: Whether embeddings are decayed.
        layers: Options by glob over the names of parameters, of a tied one over all its names; where
            several globs match, all apply, a later one winning. ``weight_decay`` is not for parameters
            that are left undecayed (:func:`undecayed_parameters`), unless one's full name stands in the
            place of the glob.
        layer_decay: Factor of lr from a layer to the one below (:func:`levels_below_top`), except where
            ``layers`` gives an lr; None for the same lr everywhere.

    Returns:
        The groups, each with a unique ``name``: first those that no glob matches, and of the same globs
        the lowest layers first. A single group has no name.

    Raises:
        ValueError: If a glob matches no trained parameter, an option is none of AdaBelief's, or
            ``layer_decay`` is out of its range or finds no layers.
    """
    names_of = parameter_names(module)
    _check_layers(layers, [name for _, param in named for name in names_of[param]])
    undecayed = undecayed_parameters(module, decay_embeddings)
    if layer_decay is not None:
        _check_layer_decay(layer_decay)
    levels = {} if layer_decay is None else levels_below_top(module)
    top = max(levels.values(), default=0)
    groups: dict[_GroupKey, dict[str, Any]] = {}
    for name, param in named:
        globs = tuple(glob for glob in layers if any(fnmatchcase(own, glob) for own in names_of[param]))
        options = {option: value for glob in globs for option, value in layers[glob].items()}
        asked_for = any(glob in names_of[param] and "weight_decay" in layers[glob] for glob in globs)
        depth = ""
        if layer_decay is not None and "lr" not in options:
            options["lr"] = lr * layer_decay ** levels[param]
            depth = f"depth{top - levels[param]:0{len(str(top))}d}"  # of one length, so that loggers sort them
        decay = ""
        if options.get("weight_decay", weight_decay) > 0:
            decay = "undecayed" if param in undecayed and not asked_for else "decayed"
        if decay == "undecayed":
            options["weight_decay"] = 0.0
        group = groups.setdefault(_GroupKey(globs, depth, decay), {"params": [], **options})
        group["params"].append((name, param))

    glob_order = {glob: place for place, glob in enumerate(layers)}
    ordered = sorted(groups, key=lambda key: ([glob_order[glob] for glob in key.globs], key.depth))
    if len(ordered) > 1:
        names = _make_unique([_name_group(key) for key in ordered])
        for key, name in zip(ordered, names, strict=True):
            groups[key]["name"] = name
    return [groups[key] for key in ordered]


def _check_layer_decay(layer_decay: Any) -> None:
    """Raise ValueError unless it is a number in (0, 1]."""
    if not isinstance(layer_decay, int | float) or not 0 < layer_decay <= 1:
        raise ValueError(
            f"Invalid layer_decay: {layer_decay!r}. It is the factor of lr from a layer to the one below it, a number "
            "above 0 and at most 1, for example layer_decay=0.75"
        )


def _check_layers(layers: Layers, names: list[str]) -> None:
    """Raise ValueError unless each glob matches a trained parameter and names options of AdaBelief."""
    if not isinstance(layers, Mapping):
        raise ValueError(
            f"layers is {layers!r:.80}. It goes from globs to options: layers={{'encoder.*': {{'lr': 1e-4}}}}"
        )
    for glob, options in layers.items():
        if not isinstance(options, Mapping):
            raise ValueError(
                f"layers[{glob!r}] is {options!r:.80}, and must name its options, for example "
                f"layers={{{glob!r}: {{'lr': 1e-4}}}}"
            )
        if not any(fnmatchcase(name, glob) for name in names):
            raise ValueError(
                f"layers[{glob!r}] matches no parameter that is trained. {suggest(glob, names)} A parameter that is "
                "frozen gets its options when it is unfrozen (unfreeze_and_add_param_group)"
            )
        for option in options:
            if option not in OPTIONS:
                remedy = suggest(option, sorted(OPTIONS))
                raise ValueError(f"layers[{glob!r}] has {option!r}, which is no option of AdaBelief. {remedy}")
        try:
            check_values(options)
        except ValueError as error:
            raise ValueError(f"layers[{glob!r}]: {error}") from None


def _name_group(key: _GroupKey) -> str:
    """Return a group's name in characters that every logger takes: ``encoder/depth03/decayed``."""
    parts = [re.sub(r"[^\w.]+", "-", glob).strip("-._") or "all" for glob in key.globs]
    return "/".join(part for part in ("-and-".join(parts), key.depth, key.decay) if part) or "other"


def _make_unique(names: list[str]) -> list[str]:
    """Return the names, each that came before with a number behind it."""
    unique: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in unique:
            number += 1
            candidate = f"{name}-{number}"
        unique.append(candidate)
    return unique

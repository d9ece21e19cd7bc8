"""A module's parameters, named and sorted into param groups: which are decayed, which have options of their own."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.names import plain_name
from lightning_adabelief.optim.options import check_values

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NORM_NAME = re.compile(r"norm(\dd)?$", re.IGNORECASE)  # a norm of the user's own, such as LlamaRMSNorm
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
OPTIONS = frozenset(inspect.signature(AdaBelief).parameters) - {"params", "print_change_log"}

Named = list[tuple[str, Tensor]]
Layers = Mapping[str, Mapping[str, Any]]


def named_parameters(module: nn.Module) -> tuple[Named, Named]:
    """Name a module's parameters, without what FSDP, ``torch.compile`` and parametrizations put into the names.

    Args:
        module: Any module.

    Returns:
        Those that are trained, and those that are frozen (``requires_grad=False``).

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
    module: nn.Module, named: Named, *, weight_decay: float, decay_embeddings: bool, layers: Layers
) -> list[dict[str, Any]]:
    """Sort a module's trained parameters into param groups.

    Args:
        module: The module.
        named: Its trained parameters (:func:`named_parameters`).
        weight_decay: What parameters that ``layers`` says nothing of are decayed with.
        decay_embeddings: Whether embeddings are decayed.
        layers: From a glob over parameters' names to options; where several match, all apply, later
            ones winning.

    Returns:
        The groups, each with a unique ``name``, those that no glob matches first; where there is just
        one, without a name.

    Raises:
        ValueError: If a glob matches no trained parameter, or an option is none of AdaBelief's.
    """
    _check_layers(layers, [name for name, _ in named])
    undecayed = _undecayed(module, decay_embeddings)
    groups: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {}
    for name, param in named:
        globs = tuple(glob for glob in layers if fnmatchcase(name, glob))
        options = {option: value for glob in globs for option, value in layers[glob].items()}
        split = ""
        if options.get("weight_decay", weight_decay) > 0:
            split = "undecayed" if id(param) in undecayed else "decayed"
        if split == "undecayed":
            options["weight_decay"] = 0.0
        groups.setdefault((globs, split), {"params": [], **options})["params"].append((name, param))
    ordered = [groups[key] for key in sorted(groups, key=lambda key: [list(layers).index(glob) for glob in key[0]])]
    if len(groups) > 1:
        keys = {id(group): key for key, group in groups.items()}
        for name, group in zip(_unique(_label(*keys[id(group)]) for group in ordered), ordered, strict=True):
            group["name"] = name
    return ordered


def _undecayed(module: nn.Module, decay_embeddings: bool) -> set[int]:
    """The ids of biases and of the parameters of norms, and on request of embeddings; a tied one's by any owner."""
    kinds = NORMS if decay_embeddings else NORMS + EMBEDDINGS
    return {
        id(param)
        for owner in module.modules()
        for name, param in owner.named_parameters(recurse=False)
        if "bias" in name.split("_") or isinstance(owner, kinds) or NORM_NAME.search(type(owner).__name__)
    }


def _check_layers(layers: Layers, names: list[str]) -> None:
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
            near = difflib.get_close_matches(glob, names, n=3, cutoff=0)
            raise ValueError(
                f"layers[{glob!r}] matches no parameter that is trained. There are names like {', '.join(near)}; one "
                "that is frozen gets its options when it is unfrozen (unfreeze_and_add_param_group)"
            )
        for option in options:
            if option not in OPTIONS:
                near = difflib.get_close_matches(option, OPTIONS, n=2, cutoff=0)
                raise ValueError(
                    f"layers[{glob!r}] has {option!r}, which is no option of AdaBelief. Did you mean "
                    f"{' or '.join(near)}?"
                )
        try:
            check_values(options)
        except ValueError as error:
            raise ValueError(f"layers[{glob!r}]: {error}") from None


def _label(globs: tuple[str, ...], split: str) -> str:
    """A group's name, of signs that every logger takes: ``encoder/decayed``."""
    layers = "+".join(re.sub(r"[^\w.]+", "-", glob).strip("-._") or "all" for glob in globs).replace("+", "-and-")
    return "/".join(part for part in (layers, split) if part) or "other"


def _unique(labels: Iterable[str]) -> list[str]:
    """The labels, with a number behind one that came before."""
    unique: list[str] = []
    for label in labels:
        candidate, number = label, 1
        while candidate in unique:
            number += 1
            candidate = f"{label}-{number}"
        unique.append(candidate)
    return unique

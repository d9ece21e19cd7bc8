"""Weight decay by parameter: what is left without it, and decay that does not depend on the size of lr."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_adabelief.optim.names import plain_name
from lightning_adabelief.optim.options import as_number

NORM_CLASSES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NORM_CLASS_NAME = re.compile(r"norm(\dd)?$", re.IGNORECASE)  # a norm of the user's own, such as LlamaRMSNorm
EMBEDDING_CLASSES = (nn.Embedding, nn.EmbeddingBag)

UNDECAYED_NAMES = (
    "*_token",  # cls_token, dist_token, mask_token, reg_token (timm), class_token (torchvision)
    "*_tokens",  # register_tokens (DINOv2)
    "class_embedding",  # CLIP's class token
    "*pos_embed*",  # timm; pos_embedding (torchvision), absolute_pos_embed (Swin)
    "position_embedding*",  # Hugging Face's vision models
    "positional_embedding*",  # CLIP
    "rel_pos*",  # rel_pos_h and rel_pos_w of SAM and MViT
    "relative_position_bias_table",  # Swin and BEiT
    "attention_biases",  # LeViT
    "logit_scale",  # CLIP and Swin V2
    "layer_scale*",  # of shape (channels, 1, 1) in torchvision's ConvNeXt
    "gamma*",  # the same in timm and BEiT
)
"""Globs over the names of parameters that their authors train without weight decay.

Only a parameter by itself counts, as ``self.pos_embed = nn.Parameter(...)``; the weight of a layer, as
``self.pos_embed = nn.Embedding(...)``, is decayed as that layer's kind is.
"""


def undecayed_parameters(module: nn.Module, decay_embeddings: bool) -> set[Tensor]:
    """Return the parameters that have no weight decay unless they are asked for by their full name.

    These are biases, the parameters of normalization layers, parameters of one dimension or none (as in
    timm), those called as in :data:`UNDECAYED_NAMES`, and those that the module or a module in it names
    in ``no_weight_decay()``, timm's convention: names or globs, relative to that module. A tied
    parameter is one of them if it is so by any of its names.

    Args:
        module: The module.
        decay_embeddings: False to add ``nn.Embedding`` and ``nn.EmbeddingBag``.
    """
    undecayed_classes = NORM_CLASSES if decay_embeddings else NORM_CLASSES + EMBEDDING_CLASSES
    undecayed: set[Tensor] = set()
    for owner in module.modules():
        undecayed_owner = isinstance(owner, undecayed_classes) or NORM_CLASS_NAME.search(type(owner).__name__)
        for name, param in _list_own_parameters(owner):
            is_bias = "bias" in name.split("_")  # as bias_ih_l0 and in_proj_bias are
            if is_bias or undecayed_owner or is_vector(param) or _matches(name, UNDECAYED_NAMES):
                undecayed.add(param)
        no_weight_decay = getattr(owner, "no_weight_decay", None)
        if callable(no_weight_decay):
            globs = tuple(no_weight_decay())
            named = owner.named_parameters(remove_duplicate=False)
            undecayed |= {param for name, param in named if _matches(plain_name(name), globs)}
    return undecayed


def _list_own_parameters(owner: nn.Module) -> list[tuple[str, Tensor]]:
    """List a module's own parameters by name, with those that a parametrization keeps for it."""
    own: list[tuple[str, Tensor]] = list(owner.named_parameters(recurse=False))
    if parametrize.is_parametrized(owner):
        for name, kept in owner.parametrizations.items():  # type: ignore[union-attr,operator]
            own += [(name, param) for param in kept.parameters(recurse=False)]
    return own


def is_vector(param: Tensor) -> bool:
    """True if a parameter has one dimension or none; False if a wrapper flattened it, for then nobody knows."""
    flattened = hasattr(param, "_fsdp_flattened") or hasattr(param, "ds_shape")  # FSDP's; DeepSpeed's ZeRO-3
    return param.ndim <= 1 and not flattened


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    """True if one of the globs matches."""
    return any(fnmatchcase(name, glob) for glob in globs)


def divide_decay_by_lr(
    groups: list[dict[str, Any]], lr: float | Tensor, weight_decay: float, options: Mapping[str, Any]
) -> float:
    """Divide the weight decay of each group by its lr, in place, so that a step at the full lr decays as given.

    AdaBelief's decoupled decay takes lr_t * weight_decay of a weight, lr_t being what warmup and schedule
    make of lr. Divided by lr it takes weight_decay * lr_t / lr: it follows the warmup and the schedule, but not
    the size of lr (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2; ``decouple_lr``
    of optimi).

    Args:
        groups: Param groups, which may give ``lr`` and ``weight_decay``.
        lr: Learning rate of the others.
        weight_decay: Weight decay of the others: the fraction of a weight that a step at the full lr takes.
        options: The optimizer's options, which groups may give too.

    Returns:
        The weight decay of the others, divided by their lr.

    Raises:
        ValueError: If a decayed group's lr is 0, or its decay is not decoupled and multiplied by lr.
    """
    for group in groups:
        own_decay = group.get("weight_decay", weight_decay)
        group["weight_decay"] = _divide_decay(own_decay, group.get("lr", lr), {**options, **group})
    return _divide_decay(weight_decay, lr, options)


def _divide_decay(weight_decay: float, lr: float | Tensor, options: Mapping[str, Any]) -> float:
    """Divide a weight decay by lr, where there is one."""
    if weight_decay == 0:
        return 0.0
    if not options.get("weight_decouple", True):
        raise ValueError(
            "decouple_lr=True with weight_decouple=False: there the decay is a part of the gradient, and AdaBelief's "
            "denominator scales it, not lr alone. Leave one of them out"
        )
    if options.get("fixed_decay", False):
        raise ValueError(
            "decouple_lr=True with fixed_decay=True: a fixed decay knows nothing of lr, nor of its schedule. Leave "
            "fixed_decay out to have it follow the schedule, or decouple_lr to have it stay as it is"
        )
    if as_number(lr) == 0:
        raise ValueError(
            f"decouple_lr=True with lr=0: weight_decay={weight_decay} is to follow lr's ratio to its first value, "
            "which must be above 0. Give weight_decay=0 where lr is 0, or leave decouple_lr out"
        )
    return weight_decay / as_number(lr)

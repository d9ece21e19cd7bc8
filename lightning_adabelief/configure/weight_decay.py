"""Weight decay by parameter: the parameters that are left without it."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from torch import Tensor, nn

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
        for name, param in owner.named_parameters(recurse=False):
            is_bias = "bias" in name.split("_")  # as bias_ih_l0 and in_proj_bias are
            if is_bias or undecayed_owner or _is_vector(param) or _matches(name, UNDECAYED_NAMES):
                undecayed.add(param)
        no_weight_decay = getattr(owner, "no_weight_decay", None)
        if callable(no_weight_decay):
            globs = tuple(no_weight_decay())
            named = owner.named_parameters(remove_duplicate=False)
            undecayed |= {param for name, param in named if _matches(name, globs)}
    return undecayed


def _is_vector(param: Tensor) -> bool:
    """True if a parameter has one dimension or none; False if a wrapper flattened it, for then nobody knows."""
    flattened = hasattr(param, "_fsdp_flattened") or hasattr(param, "ds_shape")  # FSDP's; DeepSpeed's ZeRO-3
    return param.ndim <= 1 and not flattened


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    """True if one of the globs matches."""
    return any(fnmatchcase(name, glob) for glob in globs)

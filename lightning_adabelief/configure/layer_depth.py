"""The depth of a network's layers, counted from the top, for learning rates that fall layer by layer.

The depth is read off the tree of modules. Networks stack their layers in numbered modules: in a container
(``blocks.0``, ``encoder.layer.0``, ``h.0``), in stages that are numbered too (``layer1.0``,
``stages.0.blocks.0``, ``features.1.0``), or as attributes (``block1``, ``block2``). timm's networks tell
their layers themselves (``group_matcher()``).
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adabelief.configure.weight_decay import is_vector

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
WRAPPER_NAMES = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")
NUMBERED_NAME = re.compile(r"(.*?)[._-]?\d+")
"""A name that ends in a number, after a name that its neighbours share: ``0``, ``layer1``, ``encoder_layer_0``."""
HEAD_NAME = re.compile(r"(.*_)?(heads?|classifier|fc)")
"""Names of modules that are a network's head, even where they were registered before its layers."""
MAX_NETWORKS = 4
"""The most networks side by side, as the towers of CLIP; where more seem to be, the tree was misread."""

Params = list[Tensor]


@dataclass
class _Stack:
    """A network's layers in their order, and the parameters around them."""

    below: Params = field(default_factory=list)
    layers: list[Params] = field(default_factory=list)
    above: Params = field(default_factory=list)
    is_stage: bool = False
    """True if the layers are within a module, rather than the module itself."""

    def merge(self) -> list[Params]:
        """Return the layers, with what is around them in the first and the last."""
        layers = [list(layer) for layer in self.layers]
        layers[0] = self.below + layers[0]
        layers[-1] = layers[-1] + self.above
        return layers


@dataclass
class _Networks:
    """The networks found side by side in a module, and the parameters above them all."""

    stacks: list[_Stack] = field(default_factory=list)
    above: Params = field(default_factory=list)


def levels_below_top(module: nn.Module) -> dict[Tensor, int]:
    """Count how far each parameter is below the top of its network.

    The head, which is all that comes after the last layer, is at 0, the last layer at 1, the one before
    it at 2; what comes before the first layer, such as embeddings, a stem and tokens, is one below it. In
    a network without a head the last layer is at 0. This is how BEiT and MAE count a vision transformer.
    Networks side by side, such as two towers, or an encoder and a decoder, are each counted from their
    own top. A layer is a block of a numbered sequence of blocks; where a network has none, a single
    ``nn.Linear`` or convolution of such a sequence.

    Args:
        module: Any module, such as a LightningModule that has its network as ``self.model``.

    Returns:
        For each parameter how many levels it is below the top.

    Raises:
        ValueError: If the module has no layers whose order is known.
    """
    networks = _Networks()
    for single_modules_count in (False, True):
        networks = _find_networks(module, single_modules_count)
        if networks.stacks:
            break
    levels = _count_levels(networks)
    found = len(networks.stacks)
    if len(set(levels.values())) < 2 or found > MAX_NETWORKS:
        why = f"seems to have {found} networks side by side" if found > MAX_NETWORKS else "has no numbered layers"
        raise ValueError(
            f"layer_decay needs the order of the layers, and {type(module).__name__} {why}. Put the layers into a "
            "container in their order (self.blocks = nn.ModuleList([...])), or leave layer_decay out and give the "
            "learning rates by name: layers={'encoder.*': {'lr': 1e-4}}"
        )
    return levels


def _count_levels(networks: _Networks) -> dict[Tensor, int]:
    """Count down from the top; a tied weight is where it is lowest."""
    levels = dict.fromkeys(networks.above, 0)
    last = 1 if networks.above else 0
    for stack in networks.stacks:
        for level, layer in enumerate([*reversed(stack.layers), stack.below], start=last):
            for param in layer:
                levels[param] = max(level, levels.get(param, 0))
    return levels


def _find_networks(module: nn.Module, single_modules_count: bool) -> _Networks:
    """Find the networks in a module.

    The module's own containers and numbered modules, one after the other, are one network. Any other
    module in it is searched for networks of its own. What is registered before the first of them is
    below it, what is registered after the last is above all.
    """
    module = _unwrap(module)
    group_matcher = getattr(module, "group_matcher", None)
    if group_matcher is not None and "timm" in sys.modules:
        return _read_timm_network(module, group_matcher(coarse=False))
    found, own = _Networks(), _Stack()
    below: Params = []
    waiting: Params = []  # for a layer that follows
    for param in module.parameters(recurse=False):
        (found.above if param.ndim == 0 else below).append(param)  # a number is a temperature, such as logit_scale
    block_classes = _block_classes(module)
    stacks = _stacks_of_children(module, block_classes, single_modules_count, fewest=2)
    for name, child in module.named_children():
        stack = stacks.get(name)
        within = _Networks() if stack else _find_networks(child, single_modules_count)
        has_blocks = bool(within.stacks) and not single_modules_count
        if HEAD_NAME.fullmatch(name) and not has_blocks:
            found.above += child.parameters()
        elif stack:
            before = waiting + stack.below
            if not own.layers:
                found.stacks.append(own)
                own.below, before = before, []
            own.layers += _Stack(before, stack.layers).merge()
            waiting = list(stack.above)
        elif within.stacks:
            found.stacks += within.stacks
            found.above += within.above
        elif found.stacks:
            waiting += child.parameters()
        else:
            below += child.parameters()
    found.above += waiting
    if found.stacks:
        longest = max(found.stacks, key=lambda stack: len(stack.layers))
        longest.below += below
    return found


def _read_timm_network(module: nn.Module, matcher: Any) -> _Networks:
    """Read the layers of one of timm's networks off its ``group_matcher``."""
    from timm.models import group_parameters

    params = dict(module.named_parameters())
    groups: dict[int, Params] = {}
    for name, group in group_parameters(module, matcher, reverse=True).items():
        groups.setdefault(group, []).append(params[name])
    below, *layers = [groups[group] for group in sorted(groups)]
    # timm puts the head into the last group; without one (num_classes=0) a norm may be there.
    has_head = getattr(module, "num_classes", 0) or all(param.ndim <= 1 for param in layers[-1])
    above = layers.pop() if has_head else []
    return _Networks([_Stack(below, layers)], above)


def _stacks_of_children(
    module: nn.Module, block_classes: set[type], single_modules_count: bool, fewest: int = 1
) -> dict[str, _Stack]:
    """Return the layers of those of a module's children that are a layer, a stage or a container of them.

    Numbered children of one name (``layer1``, ``layer2``) count if ``fewest`` of them, and half of them, are
    layers or stages. The others are a stem or downsampling; among stages, single layers are too.
    """
    stacks: dict[str, _Stack] = {}
    families: dict[str, dict[str, _Stack]] = {}
    for name, child in module.named_children():
        numbered = NUMBERED_NAME.fullmatch(name)
        if not _has_matrix(child) or not (numbered or isinstance(_unwrap(child), CONTAINERS)):
            continue
        stack = _read_stack(_unwrap(child), block_classes, single_modules_count)
        if numbered:
            families.setdefault(numbered[1], {})[name] = stack
        elif stack.layers:
            stacks[name] = stack
    for family in families.values():
        counted = {name: stack for name, stack in family.items() if stack.layers}
        stages = {name: stack for name, stack in counted.items() if stack.is_stage}
        counted = stages or counted
        if len(counted) >= max(fewest, len(family) / 2):
            stacks |= counted
    return stacks


def _read_stack(module: nn.Module, block_classes: set[type], single_modules_count: bool) -> _Stack:
    """Read the layers of a numbered module or a container: itself if it is a layer, or those that are in it."""
    is_container = isinstance(module, CONTAINERS)
    is_single = not any(True for _ in module.children())
    if type(module) in block_classes or (is_single and single_modules_count):
        return _Stack(layers=[list(module.parameters())])
    stack = _Stack(below=list(module.parameters(recurse=False)), is_stage=True)
    inner = _stacks_of_children(module, block_classes, single_modules_count)
    waiting = list(stack.below)
    for name, child in module.named_children():
        if name in inner:
            before = waiting + inner[name].below
            if not stack.layers:
                stack.below, before = before, []
            stack.layers += _Stack(before, inner[name].layers, inner[name].above).merge()
            waiting = []
        elif stack.layers and not waiting and not _has_matrix(child):
            stack.layers[-1] += child.parameters()  # a norm belongs to the layer before it
        else:
            waiting += child.parameters()
    if not stack.layers:
        is_block = not is_container and not is_single
        return _Stack(layers=[list(module.parameters())] if is_block else [])
    stack.above = waiting
    return stack


def _block_classes(module: nn.Module) -> set[type]:
    """Return the classes of which a module has two with the same shapes.

    Blocks are repeated as they are, while each stage of a network has another width: so it is seen that a
    block with a numbered sequence of its own, as of experts, is one layer, and a stage is many.
    """
    seen: Counter[tuple[type, tuple[torch.Size, ...]]] = Counter()
    for name, child in module.named_children():
        if isinstance(_unwrap(child), CONTAINERS) or NUMBERED_NAME.fullmatch(name):
            for inner in child.modules():
                if not isinstance(inner, CONTAINERS) and any(True for _ in inner.children()):
                    seen[type(inner), tuple(param.shape for param in inner.parameters())] += 1
    return {kind for (kind, _), count in seen.items() if count > 1}


def _has_matrix(module: nn.Module) -> bool:
    """True if a module has a parameter of more than one dimension."""
    return not all(is_vector(param) for param in module.parameters())


def _unwrap(module: nn.Module) -> nn.Module:
    """Return the module within what FSDP, ``torch.compile`` and activation checkpointing put around it."""
    for name in WRAPPER_NAMES:
        if name in module._modules:
            return _unwrap(getattr(module, name))
    return module

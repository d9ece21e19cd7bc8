"""The optimizers that ``step_time.py`` and ``memory.py`` compare, and the models they step: lists of shapes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor

from lightning_adabelief import AdaBelief

Shapes = list[tuple[int, ...]]
MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def _list_torchvision_shapes(name: str) -> Shapes:
    with torch.device("meta"):
        return [tuple(param.shape) for param in torchvision.models.get_model(name).parameters()]


def _list_gpt2_shapes(layers: int, width: int, vocabulary: int = 50257, context: int = 1024) -> Shapes:
    """List the shapes of a GPT-2: a tied embedding, and in each block two norms, attention and an MLP."""
    norm: Shapes = [(width,), (width,)]
    attention: Shapes = [(3 * width, width), (3 * width,), (width, width), (width,)]
    mlp: Shapes = [(4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [(vocabulary, width), (context, width), *(layers * (norm + attention + norm + mlp)), *norm]


MODELS: dict[str, Callable[[], Shapes]] = {
    "400 tensors of 32": lambda: [(32,)] * 400,
    "ResNet-18": lambda: _list_torchvision_shapes("resnet18"),
    "4 tensors of 4096x2048": lambda: [(4096, 2048)] * 4,
    "ResNet-50": lambda: _list_torchvision_shapes("resnet50"),
    "GPT-2 medium": lambda: _list_gpt2_shapes(layers=24, width=1024),
    "GPT, 1.3 B": lambda: _list_gpt2_shapes(layers=24, width=2048),
}

CPU_MODELS = list(MODELS)[:3]
"""Models small enough to be stepped many times on a CPU."""


def _make_adabelief_pytorch(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from adabelief_pytorch import AdaBelief as Original

    with contextlib.redirect_stdout(io.StringIO()):  # print_change_log=False does not silence it
        return Original(params, lr=1e-3, weight_decay=1e-2, print_change_log=False)


def _make_timm(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from timm.optim.adabelief import AdaBelief as Timm

    return Timm(params, lr=1e-3, weight_decay=1e-2)


def _make_pytorch_optimizer(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from pytorch_optimizer import AdaBelief as PytorchOptimizer

    return PytorchOptimizer(params, lr=1e-3, weight_decay=1e-2, weight_decouple=True, rectify=True)


PEERS = ("torch", "adabelief-pytorch", "timm", "pytorch-optimizer")
"""Distributions of the optimizers that are compared."""


def _with_implementation(cls: type, **implementation: bool) -> MakeOptimizer:
    return lambda params: cls(params, lr=1e-3, weight_decay=1e-2, **implementation)


BASELINE = "AdamW fused"

OPTIMIZERS: dict[str, MakeOptimizer] = {
    BASELINE: _with_implementation(torch.optim.AdamW, fused=True),
    "AdamW foreach": _with_implementation(torch.optim.AdamW, foreach=True),
    "AdamW forloop": _with_implementation(torch.optim.AdamW, foreach=False),
    "AdaBelief fused": _with_implementation(AdaBelief, fused=True),
    "AdaBelief foreach": _with_implementation(AdaBelief, foreach=True),
    "AdaBelief forloop": _with_implementation(AdaBelief, foreach=False),
    "adabelief-pytorch": _make_adabelief_pytorch,
    "timm": _make_timm,
    "pytorch-optimizer": _make_pytorch_optimizer,
}
"""Every one with decoupled weight decay, and every AdaBelief rectified."""


def make_parameters(shapes: Shapes, device: torch.device) -> list[torch.nn.Parameter]:
    """Make float32 parameters with gradients."""
    params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def count_moved_bytes(params: list[Tensor]) -> int:
    """Count the bytes that one step must move: p, g, m and s are read, p, m and s are written."""
    return sum(7 * param.numel() * param.element_size() for param in params)

"""What the benchmarks of the optimizer share: models as lists of shapes, optimizers by name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from lightning_adabelief import AdaBelief

Shapes = list[tuple[int, ...]]
Optimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

RESULTS = Path(__file__).with_name("results")


def _torchvision(name: str) -> Shapes:
    with torch.device("meta"):
        return [tuple(param.shape) for param in torchvision.models.get_model(name).parameters()]


def _gpt(layers: int, width: int, vocabulary: int = 50257, context: int = 1024) -> Shapes:
    """Parameters of a GPT-2: tied embedding, and in a block two norms, attention and a wide layer."""
    norm: Shapes = [(width,), (width,)]
    attention: Shapes = [(3 * width, width), (3 * width,), (width, width), (width,)]
    wide: Shapes = [(4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [(vocabulary, width), (context, width), *(layers * (norm + attention + norm + wide)), *norm]


PROFILES: dict[str, Callable[[], Shapes]] = {
    "400 tensors of 32": lambda: [(32,)] * 400,
    "ResNet-18": lambda: _torchvision("resnet18"),
    "4 tensors of 4096x2048": lambda: [(4096, 2048)] * 4,
    "ResNet-50": lambda: _torchvision("resnet50"),
    "GPT-2 medium": lambda: _gpt(layers=24, width=1024),
    "GPT, 1.3 B": lambda: _gpt(layers=24, width=2048),
}

CPU_PROFILES = list(PROFILES)[:3]


def _adabelief_pytorch(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from adabelief_pytorch import AdaBelief as Original

    with contextlib.redirect_stdout(io.StringIO()):  # it prints in any case
        return Original(params, lr=1e-3, weight_decay=1e-2, print_change_log=False)


def _timm(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from timm.optim.adabelief import AdaBelief as Timm

    return Timm(params, lr=1e-3, weight_decay=1e-2)


def _pytorch_optimizer(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from pytorch_optimizer import AdaBelief as PytorchOptimizer

    return PytorchOptimizer(params, lr=1e-3, weight_decay=1e-2, weight_decouple=True, rectify=True)


PEERS = ("torch", "adabelief-pytorch", "timm", "pytorch-optimizer")
"""Packages whose versions matter to what is measured."""


def _path(cls: type, **path: bool) -> Optimizer:
    return lambda params: cls(params, lr=1e-3, weight_decay=1e-2, **path)


BASELINE = "AdamW fused"

OPTIMIZERS: dict[str, Optimizer] = {
    BASELINE: _path(torch.optim.AdamW, fused=True),
    "AdamW foreach": _path(torch.optim.AdamW, foreach=True),
    "AdamW forloop": _path(torch.optim.AdamW, foreach=False),
    "AdaBelief fused": _path(AdaBelief, fused=True),
    "AdaBelief foreach": _path(AdaBelief, foreach=True),
    "AdaBelief forloop": _path(AdaBelief, foreach=False),
    "adabelief-pytorch": _adabelief_pytorch,
    "timm": _timm,
    "pytorch-optimizer": _pytorch_optimizer,
}
"""All with decoupled weight decay, and every AdaBelief rectified."""


def parameters(shapes: Shapes, device: torch.device) -> list[torch.nn.Parameter]:
    """Make float32 parameters with gradients."""
    params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def moved_bytes(params: list[Tensor]) -> int:
    """What one step must move: p, g, m and s are read, p, m and s written."""
    return sum(7 * param.numel() * param.element_size() for param in params)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

"""Memory and time of a training step, with gradients that are released and with those that are not.

    python benchmarks/gradient_release.py
    python benchmarks/gradient_release.py --device cuda

Memory is the most that forward pass, backward pass and step hold beyond what was held before them, activations
included, in copies of the parameters; the optimizer's state is made before. On the CPU torch's profiler records every
allocation; on CUDA it is the peak that the allocator reports. For the time, the two take turns; the table has the
median over the rounds of their ratio.
"""

from __future__ import annotations

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler; read when torch is imported

import statistics
from collections.abc import Callable

import torch
import torchvision
from common import device_slug, make_parser, markdown_table, provenance, publish
from memory import measure_peak_bytes
from step_time import time_call
from torch import nn

from lightning_adabelief import AdaBelief, release_gradients

UNMEASURED_STEPS = 8
"""The first step makes the state, and rectification starts at the sixth."""


def make_perceptron(layers: int = 8, width: int = 2048) -> tuple[nn.Module, torch.Tensor]:
    """Make layers of one width, and a batch of 16."""
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))), torch.randn(16, width)


def make_resnet() -> tuple[nn.Module, torch.Tensor]:
    """Make a ResNet-18, and a batch of 4 images of 32x32."""
    return torchvision.models.resnet18(), torch.randn(4, 3, 32, 32)


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "8 layers of 2048x2048": make_perceptron,
    "ResNet-18": make_resnet,
}

IMPLEMENTATIONS = {"forloop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def make_training_step(model: str, implementation: str, releases: bool, device: torch.device) -> Callable[[], None]:
    """Make a function that trains a model for a step, after its first steps."""
    torch.manual_seed(0)
    network, batch = MODELS[model]()
    network, batch = network.to(device), batch.to(device)
    optimizer = AdaBelief(network.parameters(), lr=1e-5, **IMPLEMENTATIONS[implementation])
    if releases:
        release_gradients(network, optimizer)

    def train() -> None:
        network(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(UNMEASURED_STEPS):
        train()
    return train


def measure(model: str, implementation: str, device: torch.device, rounds: int) -> list[str]:
    """Measure a model with one implementation, and return its row of the table."""
    size = sum(param.numel() * param.element_size() for param in MODELS[model]()[0].parameters())
    usual, released = (make_training_step(model, implementation, releases, device) for releases in (False, True))
    copies = [measure_peak_bytes(train, device) / size for train in (usual, released)]
    ratio = statistics.median(time_call(released, device) / time_call(usual, device) for _ in range(rounds))
    return [f"{model}, {implementation}", *(f"{peak:.2f}" for peak in copies), f"{ratio:.2f}"]


def main() -> None:
    """Measure every implementation on every model."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", type=int, default=11, help="timed steps of each (default: 11)")
    args = parser.parse_args()
    device = torch.device(args.device)
    rows = [measure(model, name, device, args.rounds) for model in MODELS for name in IMPLEMENTATIONS]
    header = ["model, implementation", "copies of the parameters, usual", "released", "time, released / usual"]
    document = (
        "# Training steps with released gradients\n\n"
        f"{markdown_table(header, rows)}\n{provenance('torch', 'torchvision', device=device)}"
    )
    publish(document, f"gradient_release-{device_slug(device)}.md", args.write)


if __name__ == "__main__":
    main()

"""Weights in bfloat16 and float16: what they learn, and what a step costs in bytes and time.

    python benchmarks/low_precision.py

An MLP is trained on the digits, from the same start, with weights, gradients and activations in each format; its
training loss is that of the master weights, in float32. "Rounded to nearest" forgets after each step what the
rounding took away, as an optimizer does that knows of no master weight. The bytes of a parameter are those that its
tensors and those of its state hold, gradient left out. Times are ratios to ``torch.optim.AdamW(fused=True)`` in
float32, of steps taken in turns, as in ``step_time.py``.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import torch
from common import make_parser, markdown_table, provenance, publish
from contenders import BASELINE, MODELS, OPTIMIZERS, make_parameters
from sklearn.datasets import load_digits
from step_time import UNTIMED_STEPS, format_ratio, time_call
from torch import Tensor, nn

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim.low_precision import CORRECTIONS, MISSING_BITS, read_master

MODEL = "4 tensors of 4096x2048"
RATES = (1e-3, 1e-4)
EPOCHS = 30
BATCH_SIZE = 64


class Format(NamedTuple):
    """Weights of one kind, and how they are stepped; ``forgets`` is rounding to nearest."""

    dtype: torch.dtype
    options: dict[str, Any]
    forgets: bool = False


FORMATS = {
    "float32": Format(torch.float32, {}),
    "bfloat16, rounded to nearest": Format(torch.bfloat16, {}, forgets=True),
    "bfloat16, master_weight_bits=32": Format(torch.bfloat16, {"master_weight_bits": 32}),
    "bfloat16, master_weight_bits=24": Format(torch.bfloat16, {"master_weight_bits": 24}),
    "bfloat16, master_weight_bits=16": Format(torch.bfloat16, {"master_weight_bits": 16}),
    "float16, rounded to nearest": Format(torch.float16, {}, forgets=True),
    "float16, master_weight_bits=32": Format(torch.float16, {"master_weight_bits": 32}),
    "float16, master_weight_bits=24": Format(torch.float16, {"master_weight_bits": 24}),
    "float16, master_weight_bits=16": Format(torch.float16, {"master_weight_bits": 16}),
}


def train(kind: Format, lr: float, seed: int) -> tuple[float, float]:
    """Train on the digits; return the training loss, and the share of weights that a step of the last epoch moves."""
    digits = load_digits()
    pixels, labels = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(torch.bfloat16).to(kind.dtype)
    optimizer = AdaBelief(model.parameters(), lr=lr, rectify=False, weight_decay=1e-2, fused=True, **kind.options)
    moved: list[float] = []
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH_SIZE):
            before = _flatten(model)
            optimizer.zero_grad()
            logits = model(pixels[chosen].to(kind.dtype))
            nn.functional.cross_entropy(logits.float(), labels[chosen]).backward()
            optimizer.step()
            if kind.forgets:
                _forget_rounding(optimizer)
            if epoch == EPOCHS - 1:
                moved.append((_flatten(model) != before).float().mean().item())
    masters = [read_weight(param, optimizer) for param in model.parameters()]
    model.float().load_state_dict(dict(zip(model.state_dict(), masters, strict=True)))
    with torch.no_grad():
        return nn.functional.cross_entropy(model(pixels), labels).item(), statistics.mean(moved)


def read_weight(param: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the weight that a step works on."""
    if param.dtype not in MISSING_BITS:
        return param.detach()
    return read_master(param, *map(optimizer.state[param].get, CORRECTIONS))


def _flatten(model: nn.Module) -> Tensor:
    return torch.cat([param.detach().flatten() for param in model.parameters()])


def _forget_rounding(optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        for name in CORRECTIONS:
            state[name].zero_()


def count_bytes(optimizer: torch.optim.Optimizer, forgets: bool) -> float:
    """Count the bytes of a parameter: of its tensor and of its state's tensors of that shape."""
    total = elements = 0
    for param, state in optimizer.state.items():
        kept = [value for name, value in state.items() if not (forgets and name in CORRECTIONS)]
        total += sum(tensor.numel() * tensor.element_size() for tensor in (param, *kept) if tensor.dim())
        elements += param.numel()
    return total / elements


def time_steps(rounds: int) -> tuple[dict[str, str], dict[str, str]]:
    """Time a step of each format; return its ratio to the baseline, and its bytes a parameter."""
    optimizers = {BASELINE: OPTIMIZERS[BASELINE](make_parameters(MODELS[MODEL](), torch.device("cpu")))}
    for name, kind in FORMATS.items():
        params = [nn.Parameter(torch.randn(shape).to(kind.dtype)) for shape in MODELS[MODEL]()]
        for param in params:
            param.grad = torch.randn_like(param)
        optimizers[name] = AdaBelief(params, weight_decay=1e-2, fused=True, **kind.options)
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for t in range(UNTIMED_STEPS + rounds):
        for name, optimizer in optimizers.items():
            taken = time_call(optimizer.step, torch.device("cpu"))
            if t >= UNTIMED_STEPS:
                seconds[name].append(taken)
    ratios = {name: format_ratio(seconds, name, BASELINE) for name in FORMATS}
    sizes = {name: f"{count_bytes(optimizers[name], kind.forgets):.1f}" for name, kind in FORMATS.items()}
    return ratios, sizes


def main() -> None:
    """Train and time every format."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each format and rate (default: 3)")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each format (default: 15)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # more make a step of so small a network slower
    ratios, sizes = time_steps(args.rounds)
    rows = []
    for name, kind in FORMATS.items():
        row = [name, sizes[name]]
        for lr in RATES:
            losses, moved = zip(*(train(kind, lr, seed) for seed in range(args.seeds)), strict=True)
            row += [f"{statistics.mean(losses):.4f}", f"{statistics.mean(moved):.0%}"]
        rows.append([*row, "-" if kind.forgets else ratios[name]])
    of_rates = [f"{what} at lr {lr:g}" for lr in RATES for what in ("training loss", "moved by a step")]
    table = markdown_table(["weights", "bytes a parameter", *of_rates, f"time of a step / {BASELINE}"], rows)
    notes = (
        f"AdaBelief with float32 moments. Digits: an MLP 64-128-10, {EPOCHS} epochs, batches of {BATCH_SIZE}, means of "
        f"{args.seeds} seeds; the share of weights that a step moves is that of the last epoch. Time: {MODEL}, median "
        f"of {args.rounds} steps, to AdamW in float32.\n"
    )
    publish(f"# Weights of 16 bits\n\n{notes}\n{table}\n{provenance('torch')}", "low-precision.md", args.write)


if __name__ == "__main__":
    main()

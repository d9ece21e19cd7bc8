"""Memory and time of a step, and what is learned, with weights and averages of fewer bits.

    python benchmarks/low_memory.py --write

Bytes are measured on the storages of weights, gradients and state after a step. Times are ratios to
``torch.optim.AdamW(fused=True)`` in float32, of steps taken in turns, as in ``step_time.py``. Losses are those of
``adabelief compare``: three recipes, shortened as in ``comparisons.py``, at the learning rate of each recipe, with the
averages in 32, 16 and 8 bits; the difference to 32 bits is taken seed by seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import make_parser, markdown_table, provenance, publish
from comparisons import ADABELIEF, COMPARISONS
from contenders import CPU_MODELS, MODELS, Shapes
from step_time import UNTIMED_STEPS, format_ratio, time_call
from torch import Tensor, nn
from torchao.optim import AdamW8bit

import lightning_adabelief
from lightning_adabelief import AdaBelief, release_gradients
from lightning_adabelief.comparison.report.numbers import show_difference, show_mean

FLASH_OPTIM = ("AdamW of FlashOptim, as published", "bfloat16 and 8 bits", "8 bits", "7")
"""Bytes of a parameter, gradient included, on CUDA alone: arXiv 2602.23349."""

PLAIN = {"lr": 1e-3, "weight_decay": 1e-2}


class Kind(NamedTuple):
    """An optimizer on weights and gradients of one dtype; ``weights`` and ``averages`` are for the table."""

    optimizer: str
    weights: str
    averages: str
    cls: Any
    dtype: torch.dtype
    options: dict[str, Any]


def _list_kinds() -> list[Kind]:
    bfloat16, float32, fused = torch.bfloat16, torch.float32, {"fused": True}
    kinds = [
        Kind("AdamW", "float32", "32 bits", torch.optim.AdamW, float32, fused),
        Kind("AdamW", "bfloat16", "16 bits", torch.optim.AdamW, bfloat16, fused),
        Kind("AdamW8bit of torchao", "float32", "8 bits", AdamW8bit, float32, {}),
        Kind("AdamW8bit of torchao", "bfloat16", "8 bits", AdamW8bit, bfloat16, {"bf16_stochastic_round": True}),
    ]
    for bits in (32, 16, 8):
        kinds.append(Kind("AdaBelief", "float32", f"{bits} bits", AdaBelief, float32, fused | {"state_bits": bits}))
    for master, weights in ((32, "bfloat16 and 16 bits"), (24, "bfloat16 and 8 bits"), (16, "bfloat16")):
        for bits in (32, 16, 8):
            options = fused | {"master_weight_bits": master, "state_bits": bits}
            kinds.append(Kind("AdaBelief", weights, f"{bits} bits", AdaBelief, bfloat16, options))
    return kinds


KINDS = _list_kinds()

RELEASED = {"master_weight_bits": 24, "state_bits": 8}
"""The options of the kind whose bytes are counted with released gradients too."""


def make_optimizer(kind: Kind, shapes: Shapes) -> torch.optim.Optimizer:
    """Make an optimizer of its own weights, which have gradients."""
    params = [nn.Parameter(torch.randn(shape).to(kind.dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return kind.cls(params, **PLAIN, **kind.options)


def count_bytes(optimizer: torch.optim.Optimizer) -> float:
    """Count the bytes of a parameter: those of the storages of weights, gradients and state."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    tensors = [*params, *(param.grad for param in params if param.grad is not None)]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    parts = (part for tensor in tensors for part in list_parts(tensor))
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    return sum(storages.values()) / sum(param.numel() for param in params)


def list_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Iterate over the plain tensors that a tensor, which may be of a subclass, is made of."""
    if type(tensor) in (Tensor, nn.Parameter):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from list_parts(getattr(tensor, name))


def count_released_bytes(kind: Kind, shapes: Shapes) -> float:
    """Count the bytes of a parameter, as :func:`count_bytes`, after a step whose gradients were released."""
    model = nn.ParameterList([torch.randn(shape).to(kind.dtype) for shape in shapes])
    optimizer = kind.cls(model.parameters(), **PLAIN, **kind.options)
    release_gradients(model, optimizer)
    sum(param.square().mean() for param in model).backward()
    return count_bytes(optimizer)


def time_model(model: str, rounds: int) -> tuple[list[str], list[float]]:
    """Time a step of each kind on a model; return ratios to the first, and bytes a parameter."""
    optimizers = [make_optimizer(kind, MODELS[model]()) for kind in KINDS]
    for optimizer in optimizers:
        for _ in range(UNTIMED_STEPS):
            optimizer.step()
    seconds: dict[str, list[float]] = {str(number): [] for number in range(len(KINDS))}
    order = random.Random(0)
    for _ in range(rounds):
        for number in order.sample(range(len(KINDS)), len(KINDS)):
            seconds[str(number)].append(time_call(optimizers[number].step, torch.device("cpu")))
    return [format_ratio(seconds, number, "0") for number in seconds], list(map(count_bytes, optimizers))


def compare_losses(names: list[str], out: Path, seeds: int, jobs: int) -> list[list[str]]:
    """Compare averages of 32, 16 and 8 bits on recipes; return the table's rows."""
    optimizers = [
        {"name": f"{bits} bits", "class_path": ADABELIEF, "init_args": {"state_bits": bits}} for bits in (32, 16, 8)
    ]
    rows = []
    for name in names:
        comparison = COMPARISONS[name] | {"optimizers": optimizers, "lr": [1.0], "seeds": seeds}
        result = lightning_adabelief.compare(out=out / name, jobs=jobs, **comparison)
        for bits, values in result.values.items():
            against = result.comparisons.get(bits)
            cells = [show_difference(against), against.verdict] if against else ["-", "-"]
            rows.append([name, result.metric, bits, show_mean(list(values.values())), *cells])
    return rows


def main() -> None:
    """Measure bytes, times and losses."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="timed steps of each optimizer (default: 21)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each recipe (default: 5)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("low_memory"), help="folder for the trials")
    recipes = ["digits-cnn", "digits-wgan", "pydocs-lstm"]
    parser.add_argument("--recipes", nargs="*", default=recipes, metavar="NAME", help=f"default: {', '.join(recipes)}")
    parser.add_argument("--models", nargs="+", choices=CPU_MODELS, default=CPU_MODELS)
    args = parser.parse_args()

    ratios, sizes = {}, {}
    for model in args.models:
        ratios[model], sizes[model] = time_model(model, args.rounds)
    largest = args.models[-1]
    rows = [
        [*kind[:3], f"{size:.2f}", *(ratios[model][number] for model in args.models)]
        for number, (kind, size) in enumerate(zip(KINDS, sizes[largest], strict=True))
    ]
    released = next(kind for kind in KINDS if kind.options.items() >= RELEASED.items())
    released_size = count_released_bytes(released, MODELS[largest]())
    no_times = ["-" for _ in args.models]
    rows.append(["AdaBelief, gradients released", *released[1:3], f"{released_size:.2f}", *no_times])
    rows.append([*FLASH_OPTIM, *no_times])
    header = ["optimizer", "weights", "averages", "bytes a parameter", *(f"step: {model}" for model in args.models)]
    step_table = markdown_table(header, rows)
    losses = compare_losses(args.recipes, args.out, args.seeds, args.jobs)
    loss_columns = ["recipe", "metric", "averages in", "value", "difference to 32 bits (95 % interval)", "verdict"]
    document = (
        "# Weights and averages of fewer bits\n\n"
        f"## Bytes and time\n\nBytes are those of weight, gradient and state together, on {largest}. Step: the median "
        f"of {args.rounds}, taken in turns, as a ratio to AdamW in float32. All but torchao's are fused; tensors of "
        f"less than 4,096 weights keep float32 averages.\n\n{step_table}\n"
        "## What is learned\n\nThe recipes, shortened, each at its own learning rate: means and standard deviations of "
        f"{args.seeds} seeds, and differences seed by seed with Student's interval and the verdict of `adabelief "
        f"compare`.\n\n{markdown_table(loss_columns, losses)}\n"
        f"{provenance('torch', 'torchao', 'pytorch-lightning', 'lightning-adabelief')}"
    )
    publish(document, "low-memory.md", args.write)


if __name__ == "__main__":
    main()

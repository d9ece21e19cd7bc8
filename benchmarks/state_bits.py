"""Codes that could hold m_t and s_t in 16 or in 8 bits, compared on recorded gradients.

    python benchmarks/state_bits.py --write

Gradients of three recipes are recorded while they train, and replayed: an AdaBelief in float32 beside those whose m_t
or s_t is stored in a code after each step, so that errors add up as they do in training. Then gradient noise falls a
hundredfold, and s_t has to follow. Last, digits-cnn is trained with both averages in codes.
"""

from __future__ import annotations

import statistics
import sys
from typing import NamedTuple

import torch
from common import make_parser, markdown_table, provenance, publish
from state_codes import BLOCKS, CODES_OF_M, CODES_OF_MAXIMUM, CODES_OF_S, FLOAT32, Code, find_code
from state_trainings import CHUNK, CodedState, Recording, record, train
from torch import Tensor

TASKS = {"digits-cnn": 480, "digits-sngan": 900, "pydocs-lstm": 400}
"""The steps that are recorded of each recipe, all optimizers' together."""

TRAINING_EPOCHS = 8
STEPS_BEFORE, STEPS_AFTER, FALL = 2_000, 10_000, 100.0
"""Steps before and after the fall of the noise, and the factor by which it falls."""

PAIRS = [
    ("float32", "float32"),
    ("bfloat16, nearest", "bfloat16, nearest"),
    ("bfloat16, stochastic", "bfloat16, stochastic"),
    ("16 bits, log(1 + x) m11, nearest, 128", "16 bits, log(1 + x) m11, stochastic, 128"),
    ("8 bits, linear, nearest, 128", "8 bits, linear, nearest, 128"),
    ("8 bits, dynamic, nearest, 128", "8 bits, dynamic, nearest, 128"),
    ("8 bits, log(1 + x) m5, nearest, 128", "8 bits, log(1 + x) m4, nearest, 128"),
    ("8 bits, log(1 + x) m5, nearest, 128", "8 bits, log(1 + x) m4, stochastic, 128"),
]
"""The codes of m_t and of s_t that digits-cnn is trained with."""


class Replayed(NamedTuple):
    """The averages after recorded steps.

    Attributes:
        m: m_t after the last step.
        s: s_t after the last step.
        path: The sum of m_t / sqrt(s_t) over the second half of the steps.
    """

    m: Tensor
    s: Tensor
    path: Tensor


def replay(recording: Recording, code_of_m: Code, code_of_s: Code) -> Replayed:
    """Take the recorded steps, and store m_t and s_t in a code after each of them."""
    (beta1, beta2), eps = recording.betas, recording.eps
    generator = torch.Generator().manual_seed(0)
    m, s, path = torch.zeros(3, recording.gradients.shape[1])
    for step, gradient in enumerate(recording.gradients):
        d = gradient - m
        m = m + (1 - beta1) * d
        s = beta2 * s + (1 - beta2) * (beta1 * d) ** 2 + eps
        if step >= len(recording.gradients) // 2:
            path = path + m / s.sqrt()
        m, s = code_of_m.round_trip(m, generator), code_of_s.round_trip(s, generator)
    return Replayed(m, s, path)


def store_once(exact: list[Replayed], code_of_m: Code, code_of_s: Code) -> list[Replayed]:
    """Return exact averages as they are after they were stored once."""
    generator = torch.Generator().manual_seed(0)
    return [
        Replayed(code_of_m.round_trip(m, generator), code_of_s.round_trip(s, generator), path) for m, s, path in exact
    ]


def find_steps(replayed: list[Replayed]) -> Tensor:
    """Return the effective steps m_t / sqrt(s_t) that follow from the averages."""
    return torch.cat([m / s.sqrt() for m, s, _ in replayed])


def find_error(exact: Tensor, coded: Tensor) -> float:
    """Return the norm of the difference, over that of the exact."""
    return float((coded - exact).norm() / exact.norm())


def follow_fall(code: Code) -> tuple[float, float, float, float]:
    """Let gradient noise fall a hundredfold, in whole blocks and in every second weight of others.

    Returns:
        For the former, then for the latter, the mean of s_t over that of the exact one, and the root mean square of
        the relative error of 1 / sqrt(s_t).
    """
    beta2, eps = 0.999, 1e-16
    noise = torch.Generator().manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    whole, mixed = torch.zeros(2, 4 * CHUNK, dtype=torch.bool)
    whole[: 2 * CHUNK], mixed[2 * CHUNK :: 2] = True, True
    falls = whole | mixed
    exact = coded = torch.zeros(len(falls))
    for step in range(STEPS_BEFORE + STEPS_AFTER):
        d = torch.randn(len(falls), generator=noise)
        if step >= STEPS_BEFORE:
            d = d.where(~falls, d / FALL)
        added = (1 - beta2) * d**2 + eps
        exact = beta2 * exact + added
        coded = code.round_trip(beta2 * coded + added, generator)
    ratios = [float(coded[where].mean() / exact[where].mean()) for where in (whole, mixed)]
    errors = [float(((exact / coded)[where].sqrt() - 1).square().mean().sqrt()) for where in (whole, mixed)]
    return ratios[0], errors[0], ratios[1], errors[1]


def follow_rise(code: Code) -> tuple[float, float]:
    """Let noise grow tenfold in half of each block, and store amsgrad's maximum of the exact s_t in a code.

    Returns:
        The mean of the largest s_t so far over that of the exact one: where the noise grows, and where it does not.
    """
    beta2 = 0.999
    noise = torch.Generator().manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    grows = torch.arange(4 * CHUNK) % 2 == 0
    s = exact = coded = torch.zeros(len(grows))
    for step in range(STEPS_BEFORE):
        d = torch.randn(len(grows), generator=noise)
        d = d.where(~grows, d * (1 + 9 * step / STEPS_BEFORE))
        s = beta2 * s + (1 - beta2) * d**2
        exact = exact.maximum(s)
        coded = code.round_trip(coded.maximum(s), generator)
    growing, other = (float(coded[where].mean() / exact[where].mean()) for where in (grows, ~grows))
    return growing, other


def describe_spans(replayed: list[Replayed]) -> list[str]:
    """Return the octaves that s_t spans: over all weights, and in 99 of 100 blocks of each size."""
    s = torch.cat([one.s for one in replayed])
    spans = [torch.log2(s.max() / s.min())]
    for block in BLOCKS:
        of_blocks = s.view(-1, block)
        spans.append(torch.log2(of_blocks.amax(1) / of_blocks.amin(1)).quantile(0.99))
    return [f"{float(span):.0f}" for span in spans]


def format_percent(fraction: float) -> str:
    """Return a fraction in percent, with two digits."""
    return f"{100 * fraction:.2g}" if fraction < 0.995 else f"{100 * fraction:.0f}"


def make_rows(codes: list[Code], recorded: dict[str, list[Recording]], is_of_m: bool) -> list[list[str]]:
    """Replay the recordings with each code, and return the table's rows."""
    exact = {task: [replay(one, FLOAT32, FLOAT32) for one in of_task] for task, of_task in recorded.items()}
    rows = []
    for code in codes:
        pair = (code, FLOAT32) if is_of_m else (FLOAT32, code)
        cells = []
        for task, of_task in recorded.items():
            coded = [replay(one, *pair) for one in of_task]
            steps = find_steps(exact[task])
            errors = (
                find_error(steps, find_steps(store_once(exact[task], *pair))),
                find_error(steps, find_steps(coded)),
                find_error(*(torch.cat([one.path for one in replayed]) for replayed in (exact[task], coded))),
            )
            cells += [format_percent(error) for error in errors]
        rows.append([code.name, f"{code.bytes:.2f}", *cells])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def train_in_codes(seeds: int) -> list[list[str]]:
    """Train digits-cnn with each pair of codes, and return the table's rows."""
    rows = []
    for of_m, of_s in PAIRS:
        pair = find_code(CODES_OF_M, of_m), find_code(CODES_OF_S, of_s)
        losses = []
        for seed in range(seeds):
            coded = CodedState(*pair)
            train("digits-cnn", seed, coded, f"max_epochs={TRAINING_EPOCHS}")
            losses.append(statistics.mean(coded.losses))
        bytes_a_weight = f"{pair[0].bytes + pair[1].bytes:.2f}"
        cells = [f"{statistics.mean(losses):.4f}", " ".join(f"{loss:.4f}" for loss in losses)]
        rows.append([of_m, of_s, bytes_a_weight, *cells])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Record, replay, let the noise fall, and train."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="train with seeds 0 to SEEDS - 1")
    arguments = parser.parse_args()
    recorded = {task: record(task, steps) for task, steps in TASKS.items()}
    exact = {task: [replay(one, FLOAT32, FLOAT32) for one in of_task] for task, of_task in recorded.items()}

    spans = [[task, *describe_spans(replayed)] for task, replayed in exact.items()]
    of_tasks = [f"{task}: {what}" for task in recorded for what in ("once, %", "replayed, %", "path, %")]
    falls = []
    for code in CODES_OF_S:
        whole, error, mixed, error_of_mixed = follow_fall(code)
        cells = [f"{whole:.4g}", format_percent(error), f"{mixed:.4g}", format_percent(error_of_mixed)]
        falls.append([code.name, *cells])
        print(falls[-1], file=sys.stderr, flush=True)
    maxima = [[code.name, *(f"{ratio:.4g}" for ratio in follow_rise(code))] for code in CODES_OF_MAXIMUM]
    document = DOCUMENT.format(
        spans=markdown_table(["octaves of s_t", "all weights", *(f"blocks of {block}" for block in BLOCKS)], spans),
        m=markdown_table(["code of m_t", "bytes", *of_tasks], make_rows(CODES_OF_M, recorded, is_of_m=True)),
        s=markdown_table(["code of s_t", "bytes", *of_tasks], make_rows(CODES_OF_S, recorded, is_of_m=False)),
        falls=markdown_table(
            ["code of s_t", "whole blocks: s_t / exact", "step, %", "half of a block: s_t / exact", "step, %"], falls
        ),
        maxima=markdown_table(["code of the maximum", "growing: coded / exact", "others: coded / exact"], maxima),
        losses=markdown_table(
            ["code of m_t", "code of s_t", "bytes", "training loss", "seeds"], train_in_codes(arguments.seeds)
        ),
        steps=", ".join(f"{sum(len(one.gradients) for one in of)} of {task}" for task, of in recorded.items()),
        epochs=TRAINING_EPOCHS,
        provenance=provenance("torch", "pytorch-lightning", "lightning-adabelief"),
    )
    publish(document, "state_bits.md", arguments.write)


DOCUMENT = """# Codes for m_t and s_t

**s_t has to be rounded stochastically.** From step to step it changes by a thousandth (1 - beta2), which is less than
half the distance of two codes. Rounded to the nearest it stays where it is: in bfloat16 everywhere, and in 8 bits
wherever a block's largest number, whose scale is exact, does not fall along with the others; the dynamic map is no
exception. The training loss does not show it. m_t moves a tenth of the way to each gradient, and may be rounded either
way.

**`state_bits=16` stores a bfloat16, m_t and s_t rounded stochastically, amsgrad's maximum to the nearest.** It has no
block and no scale, so a step needs one pass and any shard its own numbers alone. The step errs by 1 to 2 % of itself,
on either side alike, and no training shows it. A code of blocks (log(1 + x) m11, or squares and fourth powers) would be
ten times nearer, but takes two passes over each block, for its scale is not known before its last number is.

**`state_bits=8` stores the logarithm of 1 + x, as the bits of a float32 have it.** With b bits of mantissa (in the
tables m5 is b = 5), the code q = 2^b (e + f) stands for E(q) = (1 + f) 2^e - 1: to decode it, shift it left by 23 - b,
add the bits of 1.0, read the sum as a float32 and subtract 1. Blocks of 128 weights share a float32 scale M, and a
number is M E(q) / E(Q), where Q is the largest code.

| average | b | Q | rounded | M |
| --- | --- | --- | --- | --- |
| m_t, its sign apart | 5 | 127 | to the nearest | the block's largest magnitude |
| s_t | 4 | 255 | stochastically | the block's largest |
| amsgrad's maximum | 4 | 255 | to the nearest | the next power of two |

Why this code: it needs no root and no table, and a number is rounded by integer arithmetic, so that every
implementation gets the same bits from it. It is not the nearest to float32. Squares are clearly better for m_t on
digits-sngan alone, and fourth powers are better for s_t on all three recipes, by two fifths of the error; but to
store them takes one square root a weight, or two, which is slow on a CPU. The dynamic map, rounded stochastically, is
better for s_t too, but noisier where noise falls in half of a block; for m_t it is worse, and it needs a table. The
training loss tells none of the codes apart.

Why these b: a bit more of mantissa nearly halves the error, and raises the least number above 0.

- m_t: m5 errs less than m4 along the path of every recipe, though it makes 0 of what is below M / 944.
- s_t: m5 would be as near as fourth powers where a block spans few octaves, but its least s_t is M / 8,032. Smaller
  ones are lifted to that, which shortens the steps of these weights for good: on digits-sngan, whose blocks span the
  most octaves, the path hardly errs less than with m4, and where noise falls in half of a block, s_t stays too high.
  The least of m4 is a millionth of M.

In 8 bits an s_t ten thousand times below its block's largest is right on average, but its step is noisy. Blocks of 64
gain little and take twice the bytes for scales. Tensors of less than 4,096 weights stay in float32. eps is added before
s_t is stored, so that its accumulated floor is kept on average. Exact zeros are exact, and in 8 bits an s_t above 0
gets at least the code 1: an eps of 1e-16 has no say beside larger neighbours. amsgrad's maximum is scaled by a power of
two because it is then stored again without change. With M itself, in 8 bits, it grows along with its block's largest.

## What s_t spans

In tensors of 4,096 weights and more, after the recorded steps: {steps}.

{spans}
## m_t in a code, s_t exact

The error of the effective step m_t / sqrt(s_t), as the norm of the difference over its norm: where the final state is
stored once, and where it is stored after each of the recorded steps. Then, likewise, the error of the path, the sum of
the effective steps in the second half of the recorded ones: in it the noise of single steps cancels out, and what
always errs to one side adds up.

{m}
## s_t in a code, m_t exact

{s}
## Gradient noise falls a hundredfold

10,000 steps later s_t should have fallen ten thousandfold: in blocks whose noise falls as a whole, and in blocks where
every second weight's stays. Beside it the error of 1 / sqrt(s_t), the root mean square over weights.

{falls}
## amsgrad's maximum while noise grows

Noise grows tenfold in every second weight of a block; the maximum of the exact s_t is stored in a code.

{maxima}
## digits-cnn trained with both in codes

The mean training loss of the last of {epochs} epochs, and of each seed.

{losses}
{provenance}"""

if __name__ == "__main__":
    main()

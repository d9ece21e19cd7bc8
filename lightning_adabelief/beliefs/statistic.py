"""The table of statistics: one row each. Whatever names a statistic reads it here.

To add one, add a row, and its function to :mod:`lightning_adabelief.beliefs.elementwise` (weight by
weight) or :mod:`lightning_adabelief.beliefs.sums` (sums over a layer). Logs, heat map, closing table,
TensorBoard's page, histograms and documentation follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_adabelief.beliefs import elementwise
from lightning_adabelief.beliefs.elementwise import WeightBeliefs, acting_lr
from lightning_adabelief.beliefs.layers import Columns, LayerBatch
from lightning_adabelief.beliefs.reading import Readable
from lightning_adabelief.beliefs.sums import sum_beliefs, sum_gain, sum_grads, sum_grads_and_momentum, sum_weights
from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.scaling import rectification, warmup_factor

Group = dict[str, Any]


@dataclass(frozen=True)
class Statistic:
    """A statistic of a layer or of an optimizer.

    Attributes:
        name: The name in tags, options and tables.
        scope: ``"layer"`` or ``"optimizer"``.
        definition: How it is computed, in a few words.
        meaning: What it tells.
        condensed: How the weights of a layer are condensed, for titles: ``"mean"``, ``"median"``, ``"norm"``.
        unit: Its unit, for titles.
        of_weights: From averages to a value for each weight. It is what histograms show; and unless there is
            ``of_sums``, a layer's value is its mean or median (``condensed``) over a sample of the weights; what has
            a median falls as the s_t rises that the step is divided by, and depends on no other average.
        sums: Functions from a batch of layers to the sums that ``of_sums`` needs; none where BeliefMonitor adds them.
        of_sums: From sums to the value; a KeyError where the sums are missing. Layers together have the value of
            their sums.
        of_group: From a param group and the step its parameters are at to the value.
        chart: Category and title of its chart on TensorBoard's custom-scalars page; statistics of one title share it.
        color_range: The ends of the heat map's scale of colours; None for one is the smallest or largest value, and
            None for both ends at once keeps the statistic out of the heat map.
        column: Its header in the closing table; None keeps it out.
        format: How the closing table writes it.
        needs: How much of an optimizer must be readable for it.
    """

    name: str
    scope: Literal["layer", "optimizer"]
    definition: str
    meaning: str
    condensed: str = ""
    unit: str = ""
    of_weights: Callable[[WeightBeliefs], Tensor] | None = None
    sums: tuple[Callable[[LayerBatch], Columns], ...] = ()
    of_sums: Callable[[Columns], Tensor] | None = None
    of_group: Callable[[Group, float], float] | None = None
    chart: tuple[str, str] = ("belief", "")
    color_range: tuple[float | None, float | None] | None = None
    column: str | None = None
    format: str = "{:.2e}"
    needs: Readable = Readable.GRADIENT


STATISTICS = (
    Statistic(
        name="s_t",
        scope="layer",
        definition="mean of the bias-corrected s_t",
        meaning="how much gradients disagree with their own trend",
        condensed="mean",
        unit="gradient²",
        of_weights=lambda weights: weights.belief,
        sums=(sum_beliefs,),
        of_sums=lambda sums: sums["s_t"] / sums["size"],
        chart=("belief", "s_t"),
        color_range=(None, None),
        column="s_t",
        needs=Readable.SECOND_MOMENT,
    ),
    Statistic(
        name="effective_step_size",
        scope="layer",
        definition="median of lr_t / (sqrt(s_t) + eps), warmup and rectification included",
        meaning="how far a weight moves for a unit of momentum",
        condensed="median",
        unit="per unit of momentum",
        of_weights=elementwise.effective_step_size,
        chart=("belief", "effective_step_size"),
        color_range=(None, None),
        column="effective\nstep size",
        needs=Readable.SECOND_MOMENT,
    ),
    Statistic(
        name="step_gain_over_adam",
        scope="layer",
        definition="root mean of v_t / s_t, where v_t = s_t / beta1 + m_t² is what Adam would divide by",
        meaning="how much further than Adam a weight moves at the same lr: 1.083 on pure noise at beta1 = 0.9, more "
        "where gradients agree; from an Adam's state, a lower bound",
        condensed="root mean",
        unit="times Adam's step",
        of_weights=elementwise.step_gain_over_adam,
        sums=(sum_gain,),
        of_sums=lambda sums: _root(sums["gain_square"] / sums["size"]),
        chart=("belief", "step_gain_over_adam"),
        color_range=(1, None),
        column="gain over\nAdam",
        format="{:.2f}x",
        needs=Readable.SECOND_MOMENT,
    ),
    Statistic(
        name="eps_share",
        scope="layer",
        definition="mean fraction of s_t that is accumulated eps",
        meaning="near 1, AdaBelief is running as SGD with momentum: lower eps",
        condensed="mean",
        unit="fraction of s_t",
        of_weights=elementwise.eps_share,
        chart=("optimizer", "eps_share"),
        color_range=(0, 1),
        column="eps\nshare",
        format="{:.1%}",
        needs=Readable.BELIEF,
    ),
    Statistic(
        name="update_to_weight",
        scope="layer",
        definition="norm of the update over norm of the weight",
        meaning="1e-3 is healthy; spikes precede loss spikes",
        condensed="norm over norm",
        unit="each step",
        sums=(sum_beliefs, sum_weights),
        of_sums=lambda sums: _root(sums["update_square"]) / _root(sums["weight_square"]),
        chart=("steps", "update_to_weight"),
        color_range=(None, None),
        column="update\nto weight",
    ),
    Statistic(
        name="grad_norm",
        scope="layer",
        definition="norm of the gradient that the step used, clipped and unscaled",
        meaning="the usual suspect",
        condensed="norm",
        unit="gradient",
        sums=(sum_grads,),
        of_sums=lambda sums: _root(sums["grad_square"]),
        chart=("steps", "grad_norm, unclipped_grad_norm"),
    ),
    Statistic(
        name="update_norm",
        scope="layer",
        definition="norm of the update, decoupled weight decay included",
        meaning="the usual suspect",
        condensed="norm",
        unit="weight",
        sums=(sum_beliefs,),
        of_sums=lambda sums: _root(sums["update_square"]),
        chart=("steps", "update_norm"),
    ),
    Statistic(
        name="grad_momentum_cosine",
        scope="layer",
        definition="cosine of the gradient and the momentum before it, m_(t-1)",
        meaning="whether the gradient still points where it has been going: 0 on noise, 1 where it is constant",
        condensed="cosine",
        unit="of gradient and momentum",
        sums=(sum_grads_and_momentum,),
        of_sums=lambda sums: sums["grad_momentum"] / (sums["momentum_square"] * sums["used_grad_square"]).sqrt(),
        chart=("belief", "grad_momentum_cosine"),
        color_range=(-1, 1),
        column="cosine",
        format="{:.2f}",
    ),
    Statistic(
        name="unclipped_grad_norm",
        scope="layer",
        definition="norm of the gradient before it was clipped, where the Trainer or the module clips it",
        meaning="how much of the gradient clipping takes away",
        condensed="norm",
        unit="gradient",
        of_sums=lambda sums: _root(sums["unclipped_grad_square"]),
        chart=("steps", "grad_norm, unclipped_grad_norm"),
    ),
    Statistic(
        name="lr",
        scope="optimizer",
        definition="lr times warmup times rectification; lr times warmup in the steps of SGD",
        meaning="the learning rate that acts",
        of_group=acting_lr,
        chart=("optimizer", "lr"),
    ),
    Statistic(
        name="rectification",
        scope="optimizer",
        definition="r_t, 0 to 1; 1 without `rectify`",
        meaning="the factor by which RAdam's rectification shortens the step",
        of_group=lambda group, step: rectification(step, as_number(group["betas"][1])) if group["rectify"] else 1.0,
        chart=("optimizer", "rectification, warmup"),
        needs=Readable.BELIEF,
    ),
    Statistic(
        name="warmup",
        scope="optimizer",
        definition="fraction of the learning rate in force, 0 to 1",
        meaning="how far the warmup has come",
        of_group=lambda group, step: warmup_factor(step, group["warmup"], group["total_steps"]),
        chart=("optimizer", "rectification, warmup"),
        needs=Readable.BELIEF,
    ),
    Statistic(
        name="skipped_steps",
        scope="optimizer",
        definition="steps attempted that the optimizer did not take, so far",
        meaning='steps that the gradient scaler or `nonfinite="skip"` left out',
        chart=("optimizer", "skipped_steps, nonfinite_steps"),
    ),
    Statistic(
        name="nonfinite_steps",
        scope="optimizer",
        definition="steps taken on a gradient with a NaN or an infinity, so far",
        meaning="from the first one on, the optimizer's state is not finite either",
        chart=("optimizer", "skipped_steps, nonfinite_steps"),
    ),
)
"""All statistics, in the order in which tables and charts show them."""

BY_NAME = {statistic.name: statistic for statistic in STATISTICS}
LAYER_STATISTICS = tuple(row for row in STATISTICS if row.scope == "layer")
OPTIMIZER_STATISTICS = tuple(row for row in STATISTICS if row.scope == "optimizer")
STATE_STATISTICS = tuple(row for row in LAYER_STATISTICS if row.of_weights or row.sums)
"""The statistics of layers that are measured from state, weight and gradient; the record of a run has these."""


def text_table() -> str:
    """Return the statistics as reStructuredText, for docstrings."""
    lines = []
    for scope in ("layer", "optimizer"):
        rows = [row for row in STATISTICS if row.scope == scope]
        lines += [f"Statistics of each {scope}:", ""]
        lines += [f"- ``{row.name}``, {row.definition}: {row.meaning}" for row in rows]
        lines.append("")
    return "\n".join(lines).rstrip()


def markdown_table(scope: str) -> str:
    """Return the documentation's table of the statistics of a scope."""
    rows = [row for row in STATISTICS if row.scope == scope]
    lines = [f"| statistic | of each {scope} | what it tells |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{row.name}` | {row.definition} | {row.meaning} |" for row in rows)])


def _root(square: Tensor) -> Tensor:
    return square.sqrt()

r"""What the optimizer believes: pure functions of the state that AdaBelief holds already.

Each is written for one parameter, elementwise, in the dtype of the state. ``step`` is the state's
own step t, the number of steps taken. With :math:`\hat m_t = m_t/(1-\beta_1^t)` and
:math:`\hat s_t = s_t/(1-\beta_2^t)`, the update of a weight is the product of two of them:

.. math:: \theta_t = \theta_{t-1} - \text{effective\_step\_size} \cdot \hat m_t

(up to weight decay, which is no belief). :func:`layer_statistics` condenses a layer to numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.options import SCALE_OPTIONS, as_number
from lightning_adabelief.optim.schedule import step_scale

LAYER_STATISTICS = (
    "s_t",
    "effective_step_size",
    "step_gain_over_adam",
    "eps_share",
    "update_to_weight",
    "grad_norm",
    "update_norm",
)
"""Names of what :func:`layer_statistics` can tell."""


def corrected_exp_avg(exp_avg: Tensor, step: float, beta1: float) -> Tensor:
    """The bias-corrected momentum m_t / (1 - beta1^t): the gradient's trend.

    Args:
        exp_avg: m_t, any shape.
        step: t >= 1.
        beta1: Its decay rate.

    Returns:
        A tensor like ``exp_avg``, in the gradient's unit.
    """
    return exp_avg / (1 - beta1**step)


def corrected_exp_avg_var(exp_avg_var: Tensor, step: float, beta2: float) -> Tensor:
    """The bias-corrected belief s_t / (1 - beta2^t): how far gradients are from their own trend.

    Args:
        exp_avg_var: s_t, any shape.
        step: t >= 1.
        beta2: Its decay rate.

    Returns:
        A tensor like ``exp_avg_var``, in the gradient's unit squared.
    """
    return exp_avg_var / (1 - beta2**step)


def effective_step_size(denominator_var: Tensor, step: float, eps: float, **scale_options: Any) -> Tensor:
    """How far each weight moves for a unit of bias-corrected momentum.

    lr_t / (sqrt(s_t) + eps) with the learning rate of the step, warmup and rectification included;
    lr_t alone in a step of SGD, 0 in a step not taken.

    Args:
        denominator_var: s_t, or the largest s_t so far under amsgrad, uncorrected; any shape.
        step: t >= 1.
        eps: The optimizer's eps.
        **scale_options: ``lr``, ``betas``, ``rectify``, ``degenerated_to_sgd``, ``warmup`` and
            ``total_steps``, as :func:`~lightning_adabelief.optim.schedule.step_scale` takes them.

    Returns:
        A tensor like ``denominator_var``, >= 0, in weights per unit of gradient.
    """
    scale = step_scale(step, **scale_options)
    size = scale.step_size * scale.bias_correction1
    if scale.root_scale is None:
        return torch.full_like(denominator_var, size)
    return size / (denominator_var.sqrt() * scale.root_scale + eps)


def step_gain_over_adam(exp_avg: Tensor, exp_avg_var: Tensor, step: float, betas: tuple[float, float]) -> Tensor:
    """How much further than Adam's each weight's step is: sqrt(s_t + m_t^2) / sqrt(s_t).

    E[g^2] = Var[g] + E[g]^2, so s_t + m_t^2, both bias-corrected, stands for Adam's v_t. Large
    where the gradient is large against its own scatter: region 3 of the paper's figure 1.

    Args:
        exp_avg: m_t, any shape.
        exp_avg_var: s_t, like ``exp_avg``.
        step: t >= 1.
        betas: (beta1, beta2).

    Returns:
        A tensor like ``exp_avg``, >= 1; 1 where both are 0, inf where s_t alone is.
    """
    m = corrected_exp_avg(exp_avg, step, betas[0])
    s = corrected_exp_avg_var(exp_avg_var, step, betas[1])
    # hypot, for m^2 underflows long before m matters no more
    gain = torch.hypot(s.sqrt(), m) / s.sqrt()
    return gain.where((s != 0) | (m != 0), 1.0)


def eps_share(exp_avg_var: Tensor, step: float, beta2: float, eps: float) -> Tensor:
    """The share of each s_t that is accumulated eps rather than disagreement.

    eps is added into s_t at each step; bias-corrected, what has accumulated is eps / (1 - beta2).
    Near 1 every weight has the same denominator: AdaBelief is running as SGD with momentum.

    Args:
        exp_avg_var: s_t, any shape.
        step: t >= 1.
        beta2: Its decay rate.
        eps: The optimizer's eps, taken to have been the same all along.

    Returns:
        A tensor like ``exp_avg_var``, in [0, 1]; 0 for eps = 0.
    """
    floor = eps / (1 - beta2)
    if floor == 0:
        return torch.zeros_like(exp_avg_var)
    return (floor / corrected_exp_avg_var(exp_avg_var, step, beta2)).clamp(max=1)


def elementwise(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> dict[str, Tensor]:
    """The beliefs about one parameter, weight by weight.

    Args:
        param: The parameter, any shape; a complex one is taken as pairs of real numbers.
        state: Its state in the optimizer, at least one step old.
        group: Its param group.

    Returns:
        Real tensors of one shape: ``s_t``, ``effective_step_size``, ``step_gain_over_adam``,
        ``eps_share``, and ``update``, which is the step last taken without the weight decay.
    """
    exp_avg, exp_avg_var, denominator_var = (
        torch.view_as_real(value) if torch.is_complex(param) else value
        for value in (
            state["exp_avg"],
            state["exp_avg_var"],
            state["max_exp_avg_var"] if group["amsgrad"] else state["exp_avg_var"],
        )
    )
    step = float(state["step"])
    betas, eps = (as_number(group["betas"][0]), as_number(group["betas"][1])), group["eps"]
    scale_options = {name: group[name] for name in SCALE_OPTIONS} | {"lr": as_number(group["lr"]), "betas": betas}
    size = effective_step_size(denominator_var, step, eps, **scale_options)
    return {
        "s_t": corrected_exp_avg_var(exp_avg_var, step, betas[1]),
        "effective_step_size": size,
        "step_gain_over_adam": step_gain_over_adam(exp_avg, exp_avg_var, step, betas),
        "eps_share": eps_share(exp_avg_var, step, betas[1], eps),
        "update": size * corrected_exp_avg(exp_avg, step, betas[0]),
    }


def layer_statistics(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> dict[str, Tensor]:
    """Condense the beliefs about one parameter to numbers.

    Args:
        param: The parameter after the step, with its gradient still in place; not empty.
        state: Its state in the optimizer, at least one step old.
        group: Its param group.

    Returns:
        0-dim float32 tensors on the parameter's device (nothing waits for the device), for each of
        :data:`LAYER_STATISTICS`: means of ``s_t`` and ``eps_share``; medians, as
        :func:`torch.median` defines them, of ``effective_step_size`` and ``step_gain_over_adam``;
        Euclidean norms ``update_norm``, ``grad_norm`` (NaN once the gradient is gone) and
        ``update_to_weight``, the first over that of the weight (inf for a weight of 0, NaN if the update is 0 too); and
        ``weight_norm``, which summaries need.
    """
    values = elementwise(param, state, group)
    update_norm, weight_norm = _norm(values["update"]), _norm(param)
    return {
        "s_t": values["s_t"].mean(dtype=torch.float32),
        "effective_step_size": values["effective_step_size"].median().float(),
        "step_gain_over_adam": values["step_gain_over_adam"].median().float(),
        "eps_share": values["eps_share"].mean(dtype=torch.float32),
        "update_to_weight": update_norm / weight_norm,
        "grad_norm": torch.full_like(update_norm, torch.nan) if param.grad is None else _norm(param.grad),
        "update_norm": update_norm,
        "weight_norm": weight_norm,
    }


def _norm(tensor: Tensor) -> Tensor:
    """The Euclidean norm of all entries, in float32."""
    wide = torch.promote_types(tensor.dtype, torch.float32)  # the squares of float16 overflow
    return torch.linalg.vector_norm(tensor.detach(), dtype=wide).float()


def model_statistics(layers: dict[str, Tensor], sizes: Tensor) -> dict[str, float]:
    """Summarise the layers of a model.

    Args:
        layers: For each statistic of :func:`layer_statistics` a tensor of one number a layer.
        sizes: The layers' numbers of weights, of the same length.

    Returns:
        For each of :data:`LAYER_STATISTICS` one number: the mean over all weights of ``s_t`` and
        ``eps_share``; the median layer's ``effective_step_size`` and ``step_gain_over_adam``, layers
        weighted by their size; the whole model's ``grad_norm``, ``update_norm`` and
        ``update_to_weight``.
    """
    weights = sizes.double() / sizes.sum()

    def mean(name: str) -> float:
        return float(weights @ layers[name].double())

    def median(name: str) -> float:
        values, order = layers[name].double().sort()
        half = torch.searchsorted(weights[order].cumsum(0), 0.5)
        return float(values[half.clamp(max=len(values) - 1)])

    def norm(name: str) -> float:
        return float(torch.linalg.vector_norm(layers[name].double()))

    weight_norm = norm("weight_norm")
    return {
        "s_t": mean("s_t"),
        "effective_step_size": median("effective_step_size"),
        "step_gain_over_adam": median("step_gain_over_adam"),
        "eps_share": mean("eps_share"),
        "update_to_weight": norm("update_norm") / weight_norm if weight_norm else math.inf,
        "grad_norm": norm("grad_norm"),
        "update_norm": norm("update_norm"),
    }

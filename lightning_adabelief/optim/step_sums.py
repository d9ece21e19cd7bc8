"""Sums over a parameter's elements that the fused step takes in its own pass over memory."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

SUMS = (
    "grad_square",
    "used_grad_square",
    "grad_momentum",
    "momentum_square",
    "exp_avg_var",
    "update_square",
    "weight_square",
)
r"""The names of the sums, in the order of the kernels.

With :math:`g_t` the gradient as the rule uses it (negated under ``maximize``, coupled weight decay added), they are
:math:`\sum` of: the squared gradient as ``param.grad`` has it; :math:`g_t^2`; :math:`g_t m_{t-1}`;
:math:`m_{t-1}^2`; the uncorrected :math:`s_t`; :math:`(\theta_{t-1} - \theta_t)^2`, decoupled weight decay
included; :math:`\theta_t^2`. :math:`\theta` is the weight that a step works on: of 16 bits, the master weight.
"""

StepSums: TypeAlias = dict[Tensor, Tensor]
"""From a parameter to its :data:`SUMS` in the latest step, a float64 tensor on the parameter's device."""

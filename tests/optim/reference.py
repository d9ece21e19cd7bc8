"""The oracles: the original package run silently, and the paper transcribed in NumPy float64."""

import contextlib
import io
import math

import numpy as np
import torch
from adabelief_pytorch import AdaBelief as _Original


def original(params, **options):
    """``adabelief-pytorch``'s optimizer, without its banner."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _Original(params, print_change_log=False, **options)


def paper(theta, grads, lr, betas, eps):
    """Algorithm 2 of the paper, without weight decay, one scalar at a time."""
    beta1, beta2 = betas
    theta = np.array(theta, dtype=np.float64)
    m, s = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads, start=1):
        for i in np.ndindex(theta.shape):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            s[i] = beta2 * s[i] + (1 - beta2) * (g[i] - m[i]) ** 2 + eps
            m_hat, s_hat = m[i] / (1 - beta1**t), s[i] / (1 - beta2**t)
            theta[i] -= lr * m_hat / (math.sqrt(s_hat) + eps)
    return theta


def gradients(steps, shapes, seed=0, dtype=torch.float64):
    """Noise around a trend that slowly turns, for each step a tensor a shape."""
    generator = torch.Generator().manual_seed(seed)
    trends = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [
        [
            (trend * math.cos(t / 40) + 0.5 * torch.randn(trend.shape, generator=generator, dtype=torch.float64)).to(
                dtype
            )
            for trend in trends
        ]
        for t in range(steps)
    ]


def run(make_optimizer, grads, start, lrs=None, before_step=None):
    """Run an optimizer over prescribed gradients.

    Args:
        make_optimizer: From a list of parameters to an optimizer.
        grads: For each step a gradient a parameter.
        start: The parameters' first values.
        lrs: A learning rate a step, or None to leave it.
        before_step: Called with (optimizer, t) before each step.

    Returns:
        The parameters and the optimizer.
    """
    params = [torch.nn.Parameter(value.clone()) for value in start]
    optimizer = make_optimizer(params)
    for t, step_grads in enumerate(grads):
        for param, grad in zip(params, step_grads, strict=True):
            param.grad = grad.clone()
        if lrs is not None:
            for group in optimizer.param_groups:
                group["lr"] = lrs[t]
        if before_step is not None:
            before_step(optimizer, t)
        optimizer.step()
    return params, optimizer


def assert_close(actual, expected, rtol):
    """Each entry differs by at most ``rtol`` of itself."""
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype
        difference = ((a - e).abs() / e.abs()).max().item()
        assert difference <= rtol, f"differs by {difference:.3g}, {rtol:.3g} is allowed"

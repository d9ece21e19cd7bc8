"""Every implementation is the same rule: the original's, the paper's, and each other's."""

import itertools

import numpy as np
import pytest
import torch

from lightning_adabelief import AdaBelief
from tests.optim.reference import assert_close, gradients, original, paper, run

STEPS = 300
SHAPES = [(3, 4), (5,), ()]
START = [
    torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4),
    torch.ones(5).double(),
    torch.tensor(0.3).double(),
]
CHANGING_LR = [1e-2 * (0.5 + 0.5 * (t % 50) / 50) for t in range(STEPS)]

GRID = [
    dict(
        rectify=rectify,
        degenerated_to_sgd=degenerated,
        weight_decouple=decouple,
        fixed_decay=fixed,
        amsgrad=amsgrad,
        weight_decay=decay,
        eps=eps,
        betas=betas,
    )
    for rectify, degenerated, decouple, fixed, amsgrad, decay, eps, betas in itertools.product(
        (False, True),
        (False, True),
        (False, True),
        (False, True),
        (False, True),
        (0.0, 1e-3),
        (1e-8, 1e-16),
        ((0.9, 0.999), (0.5, 0.99), (0.95, 0.9)),
    )
    if not (amsgrad and rectify)  # there the original ignores amsgrad: see test_defects.py
]


@pytest.mark.parametrize("changing_lr", [pytest.param(False, marks=pytest.mark.slow), True])
def test_agrees_with_adabelief_pytorch_over_the_whole_grid(changing_lr):
    grads = gradients(STEPS, SHAPES)
    lrs = CHANGING_LR if changing_lr else None
    for options in GRID:
        theirs, their_optimizer = run(lambda p, o=options: original(p, lr=1e-2, **o), grads, START, lrs)
        for foreach in (False, True):
            ours, our_optimizer = run(
                lambda p, o=options, f=foreach: AdaBelief(p, lr=1e-2, foreach=f, **o), grads, START, lrs
            )
            assert_close(ours, theirs, rtol=1e-12)
            for our, their in zip(ours, theirs, strict=True):
                our_state, their_state = our_optimizer.state[our], their_optimizer.state[their]
                assert our_state.keys() == their_state.keys()
                assert our_state["step"] == their_state["step"] == STEPS
                keys = our_state.keys() - {"step"}
                assert_close([our_state[k] for k in keys], [their_state[k] for k in keys], rtol=1e-12)


@pytest.mark.parametrize("eps", [1e-8, 1e-16])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99)])
@pytest.mark.parametrize("foreach", [False, True])
def test_agrees_with_the_paper_transcribed(eps, betas, foreach):
    grads = gradients(100, [(4,)])
    start = [torch.zeros(4, dtype=torch.float64)]
    (ours,), _ = run(
        lambda p: AdaBelief(p, lr=1e-2, eps=eps, betas=betas, rectify=False, foreach=foreach), grads, start
    )
    expected = paper(start[0].numpy(), [g[0].numpy() for g in grads], 1e-2, betas, eps)
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-12)


NEW_OPTIONS = [
    dict(residual="previous"),
    dict(residual="previous", betas=(0.0, 0.9)),
    dict(warmup=20),
    dict(warmup=0.2, total_steps=60),
    dict(maximize=True),
    dict(maximize=True, weight_decouple=False, weight_decay=1e-2),
    dict(amsgrad=True),
    dict(amsgrad=True, rectify=False),
]


@pytest.mark.parametrize("options", NEW_OPTIONS, ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64], ids=str
)
def test_foreach_and_forloop_agree_bit_for_bit_or_to_rounding(options, dtype):
    grads = gradients(60, SHAPES, dtype=dtype if not dtype.is_complex else torch.float32)
    if dtype.is_complex:
        grads = [[torch.complex(g, g.flip(0) if g.dim() else -g) for g in step] for step in grads]
    start = [value.to(dtype) for value in START]
    (loop, loop_optimizer), (each, each_optimizer) = (
        run(lambda p, f=foreach: AdaBelief(p, lr=1e-2, foreach=f, **options), grads, start) for foreach in (False, True)
    )
    rtol = {torch.float64: 1e-13, torch.float32: 1e-5, torch.complex64: 1e-5}.get(dtype, torch.finfo(dtype).eps)
    assert_close(each, loop, rtol=rtol)
    for key in ("exp_avg", "exp_avg_var"):
        assert_close(
            [each_optimizer.state[p][key] for p in each],
            [loop_optimizer.state[p][key] for p in loop],
            rtol=1e-5,
        )


def test_foreach_serves_parameters_of_several_dtypes_that_started_at_different_steps():
    def late(optimizer, t):
        if t < 10:  # the second parameter gets its first gradient at step 11
            optimizer.param_groups[0]["params"][1].grad = None

    start = [START[0], START[1].to(torch.float32), START[2].to(torch.bfloat16)]
    grads = [[g.to(s.dtype) for g, s in zip(step, start, strict=True)] for step in gradients(30, SHAPES)]
    loop, loop_optimizer = run(lambda p: AdaBelief(p, lr=1e-2, foreach=False), grads, start, before_step=late)
    each, each_optimizer = run(lambda p: AdaBelief(p, lr=1e-2, foreach=True), grads, start, before_step=late)
    for a, b in zip(each, loop, strict=True):
        torch.testing.assert_close(a, b)
        assert each_optimizer.state[a]["step"] == loop_optimizer.state[b]["step"]
    assert [int(each_optimizer.state[p]["step"]) for p in each] == [30, 20, 30]


def test_maximize_is_descent_on_the_negated_gradient():
    grads = gradients(40, SHAPES)
    negated = [[-g for g in step] for step in grads]
    up, _ = run(lambda p: AdaBelief(p, lr=1e-2, maximize=True), grads, START)
    down, _ = run(lambda p: AdaBelief(p, lr=1e-2), negated, START)
    assert_close(up, down, rtol=1e-15)


def test_warmup_multiplies_lr_linearly():
    grads = gradients(60, SHAPES)
    warm, _ = run(lambda p: AdaBelief(p, lr=1e-2, warmup=40, weight_decay=0.1), grads, START)
    lrs = [1e-2 * min(1, (t + 1) / 40) for t in range(60)]
    scheduled, _ = run(lambda p: AdaBelief(p, lr=1e-2, weight_decay=0.1), grads, START, lrs)
    assert_close(warm, scheduled, rtol=1e-13)


def test_warmup_as_a_fraction_is_warmup_in_steps():
    grads = gradients(60, SHAPES)
    fraction, _ = run(lambda p: AdaBelief(p, warmup=0.25, total_steps=80), grads, START)
    steps, _ = run(lambda p: AdaBelief(p, warmup=20), grads, START)
    assert_close(fraction, steps, rtol=0)


def test_previous_residual_is_measured_against_the_momentum_before_the_step():
    grads = gradients(50, [(4,)])
    (theta,), optimizer = run(
        lambda p: AdaBelief(p, residual="previous", rectify=False), grads, [torch.zeros(4).double()]
    )
    m, s = torch.zeros(4).double(), torch.zeros(4).double()
    for (g,) in grads:
        s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-16
        m = 0.9 * m + 0.1 * g
    assert_close([optimizer.state[theta]["exp_avg_var"]], [s], rtol=1e-13)


def test_amsgrad_divides_by_the_largest_belief_so_far():
    # Gradients that agree after a noisy start: s_t falls, its maximum does not.
    noisy, calm = gradients(50, [(4,)]), [[torch.ones(4).double()]] * 300
    (with_max,), optimizer = run(lambda p: AdaBelief(p, amsgrad=True), noisy + calm, [torch.zeros(4).double()])
    (without,), _ = run(lambda p: AdaBelief(p), noisy + calm, [torch.zeros(4).double()])
    state = optimizer.state[with_max]
    assert (state["max_exp_avg_var"] > state["exp_avg_var"]).all()
    assert (with_max.abs() < without.abs()).all()

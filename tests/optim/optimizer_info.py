"""AdaBelief as PyTorch's own optimizer tests know an optimizer: an OptimizerInfo."""

from copy import deepcopy

import pytest
import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

from lightning_adabelief import AdaBelief

CAPTURABLE_ON = ("cuda", "xpu")


def optim_inputs_func_adabelief(device, dtype=None):
    """Every option of the rule, alone and where it meets another; capturable where a device has it."""
    kwargs = {
        "default": {},
        "non-default lr": dict(lr=0.01),
        "weight decay": dict(weight_decay=0.1),
        "coupled weight decay, maximize": dict(weight_decay=0.1, weight_decouple=False, maximize=True),
        "coupled weight decay": dict(weight_decay=0.1, weight_decouple=False),
        "fixed decay": dict(weight_decay=1e-3, fixed_decay=True),
        "maximize": dict(weight_decay=0.1, maximize=True),
        "amsgrad": dict(weight_decay=0.1, amsgrad=True),
        "not rectified": dict(rectify=False),
        "amsgrad, not rectified": dict(amsgrad=True, rectify=False),
        "no step until rectified": dict(degenerated_to_sgd=False),
        "warmup": dict(warmup=5, weight_decay=0.1),
        "bounded, skipping": dict(max_update_to_lr=0.5, nonfinite="skip", weight_decay=0.1),
        "residual against the previous momentum": dict(residual="previous", betas=(0.0, 0.9)),
    }
    if torch.device(device).type in CAPTURABLE_ON:
        kwargs |= {
            "capturable": dict(capturable=True),
            "capturable, amsgrad": dict(weight_decay=0.1, amsgrad=True, capturable=True),
            "Tensor lr with capturable": dict(lr=torch.tensor(0.001), warmup=5, capturable=True),
            "Tensor lr, Tensor betas, with capturable": dict(
                lr=torch.tensor(0.001), betas=(torch.tensor([[[0.9]]]), torch.tensor([[0.99]])), capturable=True
            ),
        }
    inputs = [OptimizerInput(params=None, kwargs=options, desc=desc) for desc, options in kwargs.items()]
    if dtype == torch.float16:
        for optim_input in inputs:
            optim_input.kwargs["eps"] = 0.1
    return inputs


def optim_error_inputs_func_adabelief(device, dtype):
    """What a constructor refuses, in the words of torch's Adam where it refuses the same."""
    tensor_betas = (torch.tensor(0.9), torch.tensor(0.99))
    refused = {
        "Invalid beta parameter at index 0: 1.0": dict(betas=(1.0, 0.0)),
        "Invalid weight_decay value: -1": dict(weight_decay=-1),
        "Invalid epsilon value: -1": dict(eps=-1),
        "Invalid learning rate: -1": dict(lr=-1),
        "lr as a Tensor is not supported for capturable=False and foreach=True": dict(
            lr=torch.tensor(0.001), foreach=True
        ),
        r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True": dict(
            betas=tensor_betas, foreach=True
        ),
        "betas must be either both floats or both Tensors": dict(betas=(0.9, torch.tensor(0.99))),
        r"Tensor betas\[1\] must be 1-element": dict(betas=(torch.tensor(0.9), torch.tensor([0.9, 0.99]))),
        "foreach ops don't support autograd": dict(foreach=True, differentiable=True),
    }
    return get_error_inputs_for_all_optims(device, dtype) + [
        ErrorOptimizerInput(
            OptimizerInput(params=[torch.zeros(1, device=device)], kwargs=kwargs, desc=message),
            error_type=ValueError,
            error_regex=message,
        )
        for message, kwargs in refused.items()
    ]


SCHEDULERS = (
    [],
    [lambda opt: StepLR(opt, gamma=0.9, step_size=10)],
    [lambda opt: ConstantLR(opt, factor=0.4, total_iters=4)],
    [lambda opt: LinearLR(opt, start_factor=0.4, total_iters=4)],
    [lambda opt: ExponentialLR(opt, gamma=0.9)],
    [lambda opt: PolynomialLR(opt, power=0.9, total_iters=12)],
    [lambda opt: CosineAnnealingLR(opt, T_max=20)],
    [lambda opt: OneCycleLR(opt, max_lr=0.01, total_steps=30)],
    [lambda opt: StepLR(opt, gamma=0.9, step_size=10), lambda opt: ReduceLROnPlateau(opt)],
)

ADABELIEF = OptimizerInfo(
    AdaBelief,
    optim_inputs_func=optim_inputs_func_adabelief,
    optim_error_inputs_func=optim_error_inputs_func_adabelief,
    scheduler_inputs=SCHEDULERS,
    supported_impls=("foreach", "differentiable", "fused"),
    not_og_supported_flags=("foreach", "differentiable", "maximize", "capturable", "fused"),
    has_capturable_arg=True,
    supports_complex=True,
    supports_fused_on=("cpu", "cuda"),
)


def inputs(*impls):
    """pytest parameters: the options of each input on the CPU, with each of ``impls`` on in turn.

    Args:
        *impls: Of "forloop" and the info's ``supported_impls``; all of them when none is given.
    """
    return [
        pytest.param(
            deepcopy(optim_input.kwargs) | {switch: switch == impl for switch in ADABELIEF.supported_impls},
            id=f"{optim_input.desc} & {impl}",
        )
        for optim_input in ADABELIEF.optim_inputs_func("cpu")
        for impl in impls or ("forloop", *ADABELIEF.supported_impls)
    ]

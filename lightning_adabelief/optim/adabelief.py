"""The optimizer class: options, state, and which path runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _default_to_fused_or_foreach,
    _get_capturable_supported_devices,
    _get_scalar_dtype,
    _use_grad_for_differentiable,
)

from lightning_adabelief.optim.foreach import _multi_tensor_adabelief
from lightning_adabelief.optim.fused import check_fused, fused_adabelief
from lightning_adabelief.optim.migrate import to_adabelief
from lightning_adabelief.optim.options import (
    LATER_OPTIONS,
    RULE_OPTIONS,
    SCALE_OPTIONS,
    as_number,
    check_options,
    check_values,
)
from lightning_adabelief.optim.rule import single_tensor_adabelief
from lightning_adabelief.optim.run_length import known_total_steps
from lightning_adabelief.optim.scaling import Scalar, step_scale, wide

_GRAPH_CAPTURE_CHECK = next(  # torch's warning about capturable and graphs; renamed after torch 2.6
    name
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
    if hasattr(Optimizer, name)
)


class AdaBelief(Optimizer):
    r"""AdaBelief: the step is large where gradients agree with their own trend, small where not.

    .. math::
        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t \\
        s_t &= \beta_2 s_{t-1} + (1-\beta_2) (g_t - m_t)^2 + \epsilon \\
        \theta_t &= \theta_{t-1} - \alpha_t\,
            \frac{m_t / (1-\beta_1^t)}{\sqrt{s_t / (1-\beta_2^t)} + \epsilon}
        \end{aligned}

    Arguments up to ``print_change_log`` have the names, order and defaults of
    ``adabelief-pytorch`` 0.2.1. Every option can be set per param group, and is saved with it.

    Args:
        params: Parameters, named parameters, or dicts that define param groups.
        lr: Learning rate, a finite number >= 0 or a 1-element tensor (default: 1e-3).
        betas: Decay rates of m_t and s_t, each in [0, 1), both numbers or both 1-element tensors
            (default: (0.9, 0.999)).
        eps: Added into s_t at each step, where it accumulates to a floor of eps / (1 - beta2), and
            to the root of s_t. Larger is closer to SGD with momentum (default: 1e-16).
        weight_decay: Coefficient of the weight decay (default: 0).
        amsgrad: Divide by the largest s_t so far; with ``rectify`` too (default: False).
        weight_decouple: Decay the weight itself, as AdamW does, rather than add the decay to the
            gradient (default: True).
        fixed_decay: Do not multiply the decoupled decay by the learning rate (default: False).
        rectify: Multiply the step by RAdam's r_t, which grows from 0 to 1 (default: True).
        degenerated_to_sgd: With ``rectify``, take a step of SGD with momentum while r_t is
            undefined (steps 1 to 5 for beta2 = 0.999), rather than none (default: True).
        print_change_log: Taken so that a call written for ``adabelief-pytorch`` still runs;
            without effect, for this optimizer never prints.
        warmup: Steps over which the learning rate grows linearly to ``lr``: an int is their number,
            a float in (0, 1) their share of ``total_steps`` (default: 0, none).
        total_steps: Length of the run in optimizer steps; needed for a share (default: None).
        residual: What s_t averages the square of: ``"updated"`` for g_t - m_t, as in the paper;
            ``"previous"`` for g_t - m_{t-1}, which makes beta1 = 0 usable (default: "updated").
        maximize: Ascend rather than descend (default: False).
        foreach: Update lists of tensors at once. ``None`` takes this path where all parameters are
            plain tensors on a device with foreach kernels, such as CUDA; on the CPU it updates
            one tensor at a time, which holds less memory, as torch.optim does. ``paths`` tells
            which path each group takes (default: None).
        fused: Update in one pass over memory, the fastest path, for floating-point parameters on the
            CPU or CUDA. Never chosen by ``None``: on the CPU the first step compiles a kernel, for
            some seconds and once a machine, and needs a C++ compiler (default: None).
        capturable: Never wait for the device, so that the step can be captured in a CUDA graph: the
            step and its scalars are kept on the parameters' device. Not on the CPU, where
            ``torch.compile`` needs no such thing either. A tensor ``lr`` (and betas) with
            ``foreach=True`` needs it (default: False).
        differentiable: Let autograd go through the step, to the parameters, gradients and state
            before it and to a tensor ``lr`` and betas. Not with ``foreach`` (default: False).

    The state of a parameter is ``step`` (0-dim float32 tensor on the CPU; on the parameter's device
    if ``fused`` or ``capturable``; float64 if that is torch's default dtype), ``exp_avg`` (m_t),
    ``exp_avg_var`` (s_t) and, under amsgrad, ``max_exp_avg_var``, each of the parameter's shape and
    in float32, or in the parameter's dtype where that is wider.

    Raises:
        ValueError: If an option is out of its range, two do not go together, or a gradient is sparse.
        RuntimeError: If ``fused`` is given with ``foreach`` or ``differentiable``, or for a parameter it
            cannot serve (at the first step).

    Example:
        >>> import torch
        >>> from lightning_adabelief import AdaBelief
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = AdaBelief(model.named_parameters(), lr=1e-3, weight_decay=1e-2, warmup=100)
        >>> model(torch.ones(8, 4)).square().mean().backward()
        >>> optimizer.step()

    References:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients
        (NeurIPS 2020), https://arxiv.org/abs/2010.07468.
    """

    late_names: Mapping[Tensor, str] = {}
    """Names for parameters that are added later (:meth:`add_param_group`) without a name of their own."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] | tuple[Tensor, Tensor] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        rectify: bool = True,
        degenerated_to_sgd: bool = True,
        print_change_log: bool = True,
        *,
        warmup: int | float = 0,
        total_steps: int | None = None,
        residual: Literal["updated", "previous"] = "updated",
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_values({"warmup": warmup})  # before the run's length is asked for
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "weight_decouple": weight_decouple,
            "fixed_decay": fixed_decay,
            "rectify": rectify,
            "degenerated_to_sgd": degenerated_to_sgd,
            "warmup": warmup,
            "total_steps": known_total_steps(warmup) if total_steps is None else total_steps,
            "residual": residual,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        check_options(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; options it does not name take the optimizer's defaults.

        Parameters without names get some where the optimizer's others have names, which torch asks for:
        those in :attr:`late_names`, or ``group2.0``.

        Args:
            param_group: ``{"params": ..., option: value, ...}``.

        Raises:
            ValueError: As the constructor; the group is then not added.
            RuntimeError: As the constructor.
        """
        if isinstance(param_group, dict):  # torch says what else is wrong with it
            check_options({**self.defaults, **param_group})
            self._name_late_parameters(param_group)
        super().add_param_group(param_group)

    def _name_late_parameters(self, param_group: dict[str, Any]) -> None:
        """Name the parameters of a group in place, if they have no names and the optimizer's others do."""
        params = param_group.get("params")
        if not (self.param_groups and "param_names" in self.param_groups[0]) or isinstance(params, set | None):
            return
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and not any(isinstance(param, tuple) for param in params):
            prefix = f"group{len(self.param_groups) + 1}"
            params = [(self.late_names.get(param, f"{prefix}.{i}"), param) for i, param in enumerate(params)]
        param_group["params"] = params

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle; what an older version pickled gets newer options and a tensor for its step."""
        super().__setstate__(state)
        for name, default in LATER_OPTIONS.items():
            self.defaults.setdefault(name, default)
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            for param in group["params"]:
                values = self.state.get(param, {})
                if "step" in values and not isinstance(values["step"], Tensor):
                    values["step"] = _stored_step(values["step"], param, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, keeping it in float32 where the parameters are narrower.

        Args:
            state_dict: From :meth:`state_dict`, from the AdaBelief of ``adabelief-pytorch``, timm or
                pytorch-optimizer, or from ``torch.optim.Adam`` or ``AdamW``; a warning then says
                what was done to it (see :mod:`lightning_adabelief.optim.migrate`).

        Raises:
            ValueError: If the groups do not match this optimizer's (it names both), an option is not
                allowed, or the state is not one of these (it names the keys it found). Nothing is
                changed then.
        """
        saved: dict[str, Any] = {}
        done = None

        def adapt(_: Optimizer, loaded: dict[str, Any]) -> dict[str, Any]:
            nonlocal saved, done
            saved, done = to_adabelief(loaded, self.param_groups)
            _check_grouping(saved["param_groups"], self.param_groups)
            for group in saved["param_groups"]:
                check_options(group)
            return saved

        def restore_dtypes(_: Optimizer) -> None:
            # torch casts state to the parameter's dtype, which for s_t in float16 means 0.
            for loaded, group in zip(saved["param_groups"], self.param_groups, strict=True):
                for id_, param in zip(loaded["params"], group["params"], strict=True):
                    for key, value in saved["state"].get(id_, {}).items():
                        if key == "step":
                            value = _stored_step(value, param, group)
                        else:
                            value = value.to(param.device, _state_dtype(param))
                        self.state[param][key] = value

        # Last of the pre-hooks and first of the post-hooks: the user's own see what they expect.
        hooks = (
            self.register_load_state_dict_pre_hook(adapt),
            self.register_load_state_dict_post_hook(restore_dtypes, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()
        if done:
            warnings.warn(done, stacklevel=2)

    @property
    def paths(self) -> list[str]:
        """The path that each param group takes: ``"forloop"``, ``"foreach"`` or ``"fused"``."""
        return [_path(group, group["params"]) for group in self.param_groups]

    def reset(self) -> None:
        """Forget all state, so that the next step is step 1 (as ``adabelief-pytorch`` has it)."""
        self.state.clear()

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_vars: list[Tensor],
        max_exp_avg_vars: list[Tensor],
        steps: list[Tensor],
    ) -> None:
        """Gather what the group's parameters with a gradient need, making state for new ones."""
        for param in group["params"]:
            if param.grad is None:
                continue
            if param.grad.is_sparse:
                raise ValueError(
                    f"AdaBelief does not support sparse gradients, got one of layout {param.grad.layout} "
                    f"for a parameter of shape {tuple(param.shape)}; give the embedding sparse=False, or "
                    "its parameters to torch.optim.SparseAdam"
                )
            state = self.state[param]
            if not state:
                if group["fused"]:
                    check_fused(param)
                state["step"] = _stored_step(0.0, param, group)
            for key in ("exp_avg", "exp_avg_var", "max_exp_avg_var")[: 2 + group["amsgrad"]]:
                if key not in state:
                    state[key] = torch.zeros_like(param, dtype=_state_dtype(param), memory_format=torch.preserve_format)
            params.append(param)
            grads.append(param.grad)
            exp_avgs.append(state["exp_avg"])
            exp_avg_vars.append(state["exp_avg_var"])
            if group["amsgrad"]:
                max_exp_avg_vars.append(state["max_exp_avg_var"])
            steps.append(state["step"])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step on every parameter that has a gradient.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            What the closure returned; ``None`` without one.

        Raises:
            ValueError: If a gradient is sparse; no parameter is changed then.
            AssertionError: If ``capturable`` is set where parameters are on the CPU, or was set when
                there was state already; no parameter is changed then.
        """
        getattr(self, _GRAPH_CAPTURE_CHECK)()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        gathered = []
        for group in self.param_groups:
            lists: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
            self._init_group(group, *lists)
            _check_capturable(group, params=lists[0], steps=lists[-1])
            gathered.append((group, lists))
        for group, lists in gathered:
            _adabelief(
                group,
                *lists,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )
        return loss


def _check_grouping(saved: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
    """Check that a checkpoint's param groups are as many, and as large, as the optimizer's."""
    if [len(group["params"]) for group in saved] == [len(group["params"]) for group in own]:
        return
    in_checkpoint, here = (
        ", ".join(f"{group.get('name', 'unnamed')} ({len(group['params'])} parameters)" for group in groups)
        for groups in (saved, own)
    )
    raise ValueError(
        f"The checkpoint's param groups are not this optimizer's: {in_checkpoint} in the checkpoint, {here} here. "
        "configure_adabelief groups by weight_decay (0, or more), decay_embeddings, layers and layer_decay, and leaves "
        "out what is frozen: give these as the checkpoint's run had them"
    )


def _check_capturable(group: dict[str, Any], params: list[Tensor], steps: list[Tensor]) -> None:
    """As torch's optimizers: a step that must not wait for the device needs one that can be captured."""
    if not group["capturable"] or torch.compiler.is_compiling():  # the compiler knows what it can capture
        return
    supported = _get_capturable_supported_devices()
    for param, step in zip(params, steps, strict=True):
        if param.device.type not in supported or step.device.type != param.device.type:
            raise AssertionError(
                f"If capturable=True, params and state_steps must be on supported devices: {supported}, got a "
                f"parameter on {param.device} and its step on {step.device}; leave capturable out, or switch "
                "it on in the constructor or by load_state_dict"
            )


def _adabelief(
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_vars: list[Tensor],
    max_exp_avg_vars: list[Tensor],
    step_tensors: list[Tensor],
    *,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Update one group by the path its options choose."""
    if not params:
        return
    # Numbers are fast; tensors neither wait for the device nor hide from autograd and the compiler.
    in_tensors = group["capturable"] or group["differentiable"] or torch.compiler.is_compiling()
    scalar = _tensor_scalar if in_tensors else as_number
    options = {name: group[name] for name in RULE_OPTIONS}
    path = _path(group, params)
    scaled = grad_scale is not None or found_inf is not None
    if path == "fused" and (scaled or not torch.compiler.is_compiling()):
        lists = (params, grads, exp_avgs, exp_avg_vars, max_exp_avg_vars, step_tensors)
        options |= {name: group[name] for name in SCALE_OPTIONS}
        fused_adabelief(*lists, grad_scale=grad_scale, found_inf=found_inf, **options)
        return
    options["betas"] = tuple(scalar(beta) for beta in group["betas"])
    scale_options = {name: group[name] for name in SCALE_OPTIONS}
    scale_options |= {"lr": scalar(group["lr"]), "betas": options["betas"]}
    torch._foreach_add_(step_tensors, 1)
    steps: Sequence[Any] = step_tensors if in_tensors else [step.item() for step in step_tensors]

    if path != "forloop":  # fused here is for the compiler to fuse
        _multi_tensor_adabelief(
            params, grads, exp_avgs, exp_avg_vars, max_exp_avg_vars, steps, scale_options=scale_options, **options
        )
        return
    maxima: Sequence[Tensor | None] = max_exp_avg_vars or [None] * len(params)
    if in_tensors:  # of a copy, for autograd may keep it and the next step counts on in place
        scales = [step_scale(wide(step.clone()), **scale_options) for step in steps]
    else:
        known = {step: step_scale(step, **scale_options) for step in set(steps)}
        scales = [known[step] for step in steps]
    for tensors in zip(params, grads, exp_avgs, exp_avg_vars, maxima, scales, strict=True):
        single_tensor_adabelief(*tensors, **options, differentiable=group["differentiable"])


def _path(group: dict[str, Any], params: list[Tensor]) -> Literal["forloop", "foreach", "fused"]:
    """The path that a group's options choose; by default torch's choice, but never fused."""
    if group["fused"]:
        return "fused"
    foreach = group["foreach"]
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(params, group["differentiable"], use_fused=False)
    return "foreach" if foreach else "forloop"


def _tensor_scalar(value: Scalar) -> Scalar:
    """A 1-element tensor as a wide one without dimensions; a number as it is."""
    return wide(value).squeeze() if isinstance(value, Tensor) else value


def _stored_step(step: float | Tensor, param: Tensor, group: dict[str, Any]) -> Tensor:
    """The step as the state keeps it; on the CPU unless the device must not be waited for."""
    dtype = _get_scalar_dtype(group["fused"])
    device = param.device if group["capturable"] or group["fused"] else "cpu"
    if isinstance(step, Tensor):
        return step.to(device, dtype)
    return torch.full((), step, dtype=dtype, device=device)


def _state_dtype(param: Tensor) -> torch.dtype:
    """float32, or the parameter's dtype where that is wider (complex for complex)."""
    return torch.promote_types(param.dtype, torch.float32)

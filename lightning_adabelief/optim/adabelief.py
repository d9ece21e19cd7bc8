"""The optimizer class: its options and state, and a step of all its param groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _use_grad_for_differentiable

from lightning_adabelief.optim.fused import load_implementation, load_kernels
from lightning_adabelief.optim.gather import gather_tensors
from lightning_adabelief.optim.like import adabelief_like
from lightning_adabelief.optim.load import load_whole
from lightning_adabelief.optim.names import name_late_parameters
from lightning_adabelief.optim.nonfinite import find_step_to_skip, make_skip_count, prepare_skip, reset_nonfinite_state
from lightning_adabelief.optim.options import LATER_OPTIONS, check_before_step, check_options, make_plain
from lightning_adabelief.optim.state import check_capturable, check_differentiable, check_graph_capture, make_step
from lightning_adabelief.optim.step_sums import StepSums
from lightning_adabelief.optim.tensors import StepTensors
from lightning_adabelief.optim.update import choose_implementation, update_group

if TYPE_CHECKING:
    from lightning_adabelief.optim.gradient_release import GradientRelease


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
        rectify: Multiply the step by RAdam's r_t, which grows slowly from near 0 to 1 (default: True).
        degenerated_to_sgd: With ``rectify``, take a step of SGD with momentum while r_t is
            undefined (steps 1 to 5 for beta2 = 0.999), rather than none (default: True).
        print_change_log: Taken so that a call written for ``adabelief-pytorch`` still runs;
            without effect, for this optimizer never prints.
        warmup: Steps over which the learning rate grows linearly to ``lr``: an int is their number,
            a float in (0, 1) their fraction of ``total_steps`` (default: 0, none).
        total_steps: Length of the run in optimizer steps. A warmup that is a fraction needs it by the
            first step (default: None).
        residual: What s_t averages the square of: ``"updated"`` for g_t - m_t, as in the paper;
            ``"previous"`` for g_t - m_{t-1}, which makes beta1 = 0 usable (default: "updated").
        nonfinite: What becomes of a step if a gradient, on any rank, is NaN, infinite or of a norm whose square
            nearly is (4.6e18 in float32): ``"propagate"`` takes it, ``"skip"`` changes nothing and adds to
            :attr:`skipped_steps`, without waiting for the device, ``"raise"`` is an error, and waits. Groups
            with ``"propagate"`` are not looked at. The others need all ranks of torch.distributed, where it
            is initialized, to step together (default: "propagate").
        max_update_to_lr: The most that a step moves any one weight, weight decay aside, in multiples of the lr
            in force. 10, say, bounds SGD's steps on huge gradients and those where s_t is tiny (default: None).
        master_weight_bits: The bits that a step works on of a parameter in bfloat16 or float16. 32 keeps, in 2
            more bytes a weight, what its rounding took away; 24 in 1 byte; 16 in none, where the weight is
            rounded stochastically. Any of them learns what rounding to nearest would lose (default: 32).
        state_bits: The bits of each number of m_t and s_t: 32, a float; 16, a bfloat16, rounded stochastically,
            since to the nearest the small changes of s_t would be lost; 8, a code with a float32 scale for each block
            of 128. Parameters of less than 4096 elements keep 32, and for 8 those with rows (``param[0]``) of less
            than 64 (default: 32).
        rounding_seed: Seed of the stochastic rounding, which is the same in a resumed run (default: 0).
        maximize: Ascend rather than descend (default: False).
        foreach: Update lists of tensors at once. ``None`` does so, as torch.optim does, where all
            parameters are plain tensors on a device with foreach kernels, such as CUDA; on the CPU one
            tensor at a time takes less memory. ``implementations`` has the choice (default: None).
        fused: Update in one pass over memory, the fastest implementation, for floating-point parameters
            on the CPU or CUDA. Never chosen by ``None``: on the CPU the first step compiles a kernel, for
            some seconds and once a machine for its dtypes, and needs a C++ compiler (default: None).
        capturable: Never wait for the device, so that the step can be captured in a CUDA graph: the
            step and its scalars are kept on the parameters' device. Not on the CPU, where
            ``torch.compile`` does without too. A tensor ``lr`` (and betas) with ``foreach=True`` needs
            it (default: False).
        differentiable: Let autograd go through the step, to the parameters, gradients and state
            before it and to a tensor ``lr`` and betas. Not with ``foreach`` (default: False).

    The state of a parameter is ``step`` (0-dim float32 tensor on the CPU; on the parameter's device
    if ``fused``, ``capturable`` or skipping; float64 if that is torch's default dtype), ``exp_avg`` (m_t),
    ``exp_avg_var`` (s_t) and, under amsgrad, ``max_exp_avg_var``, each of the parameter's shape and
    in float32, or in the parameter's dtype where that is wider; and of a parameter of 16 bits
    ``weight_correction`` (int8) and ``weight_correction_low`` (uint8), as ``master_weight_bits`` has them. With
    ``state_bits=16`` an average is in bfloat16; with 8 it is a uint8 tensor of codes and scales
    (:mod:`lightning_adabelief.optim.packing`).

    Raises:
        ValueError: If an option is out of its range, two do not go together, a gradient is sparse, or,
            at the first step, ``warmup`` is a fraction and there is no ``total_steps``.
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

    gradient_release: GradientRelease | None = None
    """The hooks that step each parameter in the backward pass, if there are such (``release_gradients``)."""

    step_sums: StepSums | None = None
    """Set to ``{}``, the sums that the next step takes of each parameter if it is fused; None after the one then."""

    _has_kernels = False  # of all states; they are looked for when there may be others, not at each step

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
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        max_update_to_lr: float | None = None,
        master_weight_bits: Literal[16, 24, 32] = 32,
        state_bits: Literal[8, 16, 32] = 32,
        rounding_seed: int = 0,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
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
            "total_steps": total_steps,
            "residual": residual,
            "nonfinite": nonfinite,
            "max_update_to_lr": max_update_to_lr,
            "master_weight_bits": master_weight_bits,
            "state_bits": state_bits,
            "rounding_seed": rounding_seed,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, check_options(defaults))

    @classmethod
    def like(cls, optimizer: Optimizer, match_noise: bool = False) -> AdaBelief:
        r"""Make the AdaBelief that differs from an Adam, AdamW or RAdam in belief alone.

        It has the same param groups with all that they hold, the same kind and strength of weight decay,
        and no rectification unless RAdam had it. Adam's eps e becomes e^2 (1 - beta2): AdaBelief's acts
        under the root and accumulates to eps / (1 - beta2). Where beta1 is 0, ``residual`` is
        ``"previous"``. From an optimizer that has taken steps m_t and the step are copied, and s_t is
        estimated (:mod:`lightning_adabelief.optim.migrate`), so that the run goes on.

        At the same lr AdaBelief moves further than Adam even on pure noise, where E[v_t] = sigma^2 and
        E[s_t] = beta1^2 sigma^2 2 / (1 + beta1): 1.083 times as far at beta1 = 0.9, 1.732 times at 0.5.

        Args:
            optimizer: The optimizer to replace; left as it is. Schedulers stay with it, so make new ones.
            match_noise: Multiply lr by beta1 sqrt(2 / (1 + beta1)) (without the first beta1 for
                ``residual="previous"``) and divide decoupled weight decay by it: then pure noise moves
                both alike, and decay is as strong as before (default: False).

        Returns:
            The AdaBelief.

        Raises:
            ValueError: If ``optimizer`` is of another kind.

        Example:
            >>> import torch
            >>> from lightning_adabelief import AdaBelief
            >>> adamw = torch.optim.AdamW(torch.nn.Linear(4, 1).parameters(), lr=1e-3, weight_decay=0.01)
            >>> group = AdaBelief.like(adamw, match_noise=True).param_groups[0]
            >>> f"{group['lr']:.2e} {group['eps']:.0e} {group['weight_decay']:.2e} {group['rectify']}"
            '9.23e-04 1e-19 1.08e-02 False'
        """
        return adabelief_like(cls, optimizer, match_noise)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; options it does not name take the optimizer's defaults.

        Where the other parameters have names, torch requires them of these too: parameters without take
        theirs from :attr:`late_names`, or are called ``group2.0`` and so on.

        Args:
            param_group: ``{"params": ..., option: value, ...}``.

        Raises:
            ValueError: As the constructor; the group is then not added.
            RuntimeError: As the constructor.
        """
        if isinstance(param_group, dict):  # torch says what else is wrong with it
            options = check_options({**self.defaults, **param_group})
            param_group.update({name: value for name, value in options.items() if name in param_group})
            name_late_parameters(param_group, self.param_groups, self.late_names)
        super().add_param_group(param_group)
        make_skip_count(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle; add what a pickle of an older version lacks, and have the step where the parameters now are."""
        super().__setstate__(state)
        self._has_kernels = False
        self.defaults = {**LATER_OPTIONS, **{name: make_plain(value) for name, value in self.defaults.items()}}
        for group in self.param_groups:
            group.update({name: make_plain(value) for name, value in group.items()})
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            for param in group["params"]:
                values = self.state.get(param, {})
                if "step" in values:
                    values["step"] = make_step(values["step"], param, group)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch.optim does; numbers that a scheduler took from NumPy are Python's own in it.

        Returns:
            ``{"state": ..., "param_groups": ...}``, which ``torch.load(weights_only=True)`` takes.
        """
        saved = super().state_dict()
        groups = [{name: make_plain(value) for name, value in group.items()} for group in saved["param_groups"]]
        return {**saved, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, keeping it in float32 where the parameters are narrower.

        Where both have names of parameters, each finds its state by its name, else by its position.
        ``foreach``, ``fused``, ``capturable``, ``differentiable``, ``nonfinite`` and ``state_bits`` remain as they
        are here, and the averages are converted to the bits here; all other options come from the state dict.

        Args:
            state_dict: From :meth:`state_dict`, from the AdaBelief of ``adabelief-pytorch``, timm or
                pytorch-optimizer, or from ``torch.optim.Adam``, ``AdamW`` or ``RAdam``; a warning then
                says how it was converted (:mod:`lightning_adabelief.optim.migrate`). See :meth:`like`.

        Raises:
            ValueError: If the groups do not match this optimizer's (it names both), an option is not
                allowed, a parameter's state can't be its (it names the parameter), or the state is not
                one of these (it names the keys it found). Nothing is changed then.
        """
        change = load_whole(self, state_dict, super().load_state_dict)
        for group in self.param_groups:
            make_skip_count(group)
        if change:
            warnings.warn(change, stacklevel=2)

    @property
    def implementations(self) -> list[str]:
        """The implementation that updates each param group: ``"forloop"``, ``"foreach"`` or ``"fused"``."""
        return [choose_implementation(group, group["params"]) for group in self.param_groups]

    @property
    def paths(self) -> list[str]:
        """Deprecated name of :attr:`implementations`."""
        warnings.warn("AdaBelief.paths is now AdaBelief.implementations", DeprecationWarning, stacklevel=2)
        return self.implementations

    def reset(self) -> None:
        """Forget all state, so that the next step is step 1 (a method of ``adabelief-pytorch`` too)."""
        self.state.clear()

    @property
    def skipped_steps(self) -> int:
        """The steps that ``nonfinite="skip"`` skipped, before a load too; reading them waits for the device."""
        return max((int(group.get("skipped_steps", 0)) for group in self.param_groups), default=0)

    def reset_nonfinite_state(self) -> int:
        """Put finite moments in the place of those that are not, so that their weights move again.

        An s_t that has become infinite, from a gradient above 1.8e19 in float32, stays so, and stops its
        weight; a NaN in m_t or s_t makes it NaN. There m_t becomes 0, and s_t (and its largest) the mean over
        the finite ones of the tensor; a tensor without any begins again at step 1. Weights are left as they are.

        Returns:
            The number of weights whose moments were reset, on this rank.
        """
        return reset_nonfinite_state(self)

    def _init_group(self, group: dict[str, Any], *columns: Any) -> None:
        """Gather the tensors of the group's parameters that have a gradient, making state for new ones.

        Args:
            group: One of the param groups.
            *columns: Those of a :class:`StepTensors`, empty. torch.compile runs this method outside of
                the graph, which it can do with lists, not with a tuple of them.
        """
        gather_tensors(self.param_groups, group, self.state, *columns)
        if group["nonfinite"] == "skip":
            prepare_skip(group, StepTensors(*columns), self.state)

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
            ValueError: If a gradient is sparse, a warmup is a fraction and there is no ``total_steps``, an
                option was set to what is no number, a parameter's data was replaced by some of another shape,
                or a parameter can't be written to (a view, or a leaf under ``differentiable``).
            RuntimeError: If ``fused`` cannot serve a parameter, or its kernel can't be had; with
                ``nonfinite="raise"``, if a gradient or its state is not finite, here or on another rank.
            AssertionError: If ``capturable`` is set where parameters are on the CPU, or was set when
                there was state already.

        In all these cases no parameter is changed, and no step counted.
        """
        check_graph_capture(self)
        for group in self.param_groups:
            check_before_step(group)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        if self.step_sums:  # those of an earlier step
            self.step_sums = None
        gathered = self._gather_groups()
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        skip = find_step_to_skip(gathered, grad_scale)
        for group, tensors in gathered:
            if tensors.params:
                update_group(group, tensors, grad_scale=grad_scale, found_inf=found_inf, skip=skip, sums=self.step_sums)
        return loss

    def _gather_groups(self) -> list[tuple[dict[str, Any], StepTensors]]:
        """Gather and check the tensors of all groups before the first is updated: an error changes nothing."""
        states_before = len(self.state)
        gathered = []
        try:
            for group in self.param_groups:
                tensors = StepTensors.empty()
                self._init_group(group, *tensors)
                check_capturable(group, tensors)
                check_differentiable(group, tensors)
                if group["fused"] and tensors.params and not torch.compiler.is_compiling():
                    load_implementation(tensors.params[0].device)
                gathered.append((group, tensors))
            if not (self._has_kernels and len(self.state) == states_before or torch.compiler.is_compiling()):
                for group, tensors in gathered:
                    if group["fused"]:
                        load_kernels(tensors)
                self._has_kernels = True
        except BaseException:
            for param in list(self.state)[states_before:]:
                del self.state[param]
            raise
        return gathered

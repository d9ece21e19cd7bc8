"""Gradient release: each parameter is stepped within the backward pass, and its gradient dropped at once."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.fused import load_implementation
from lightning_adabelief.optim.low_precision import make_seed
from lightning_adabelief.optim.names import parameter_names
from lightning_adabelief.optim.options import check_before_step
from lightning_adabelief.optim.tensors import StepTensors
from lightning_adabelief.optim.update import update_group

REDUCING_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel")
"""The classes of modules that add gradients up over ranks after the hooks of a parameter have run."""

Watcher = Callable[[Tensor, dict[str, Any]], None]
"""A function of a parameter and its param group."""


def release_gradients(model: nn.Module, optimizer: Optimizer) -> GradientRelease:
    """Have the backward pass step each parameter as soon as its gradient is there, and drop the gradient.

    At most one gradient is held at a time, rather than as many as there are parameters. The weights are bit for
    bit those of a step after the backward pass. Call it once, in ``configure_optimizers`` for example; the loop
    stays as it is: ``optimizer.step()`` finds no gradients and steps nothing twice, but schedulers, hooks and
    Lightning's counts see it. A parameter that gets its gradient in another way than by a backward pass, or was
    added to the optimizer since the last step, is stepped there.

    From here on each ``backward()`` trains, with the options that are in the param groups at that moment. An
    error in a backward pass leaves the parameters stepped that it had reached.

    It can't go together with what needs all gradients at once, or more than one backward pass a step: clipping by
    norm, accumulation, a gradient scaler, ranks that add up their gradients, several optimizers that reach the same
    parameters, and ``nonfinite="skip"`` or ``"raise"``. A Trainer that does any of these is refused before
    training begins.

    Args:
        model: The module that is trained; a LightningModule, say.
        optimizer: Its AdaBelief.

    Returns:
        The release, whose ``remove()`` gives the gradients back to ``optimizer.step()``. An earlier release of a
        parameter, as by the last ``fit``, is removed.

    Raises:
        ValueError: If the optimizer is no AdaBelief, or cannot be stepped parameter by parameter.

    Example:
        >>> import torch
        >>> from lightning_adabelief import AdaBelief, release_gradients
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = AdaBelief(model.named_parameters())
        >>> release = release_gradients(model, optimizer)
        >>> model(torch.ones(8, 4)).square().mean().backward()
        >>> model.weight.grad is None, int(optimizer.state[model.weight]["step"])
        (True, 1)
        >>> optimizer.step()
        >>> int(optimizer.state[model.weight]["step"])
        1
    """
    if not isinstance(optimizer, AdaBelief):
        raise ValueError(
            f"release_gradients steps an AdaBelief parameter by parameter, got {type(optimizer).__name__}. Of what "
            "configure_adabelief returns with a schedule, give it ['optimizer']"
        )
    _check_ranks(model)
    for group in optimizer.param_groups:
        _check_group(group)
    return GradientRelease(model, optimizer)


class GradientRelease:
    """The hooks of :func:`release_gradients`, which makes it.

    Args:
        model: The module that is trained.
        optimizer: Its AdaBelief.
    """

    def __init__(self, model: nn.Module, optimizer: AdaBelief) -> None:
        self._model = model
        self._optimizer = optimizer
        self._hooks: dict[Tensor, RemovableHandle] = {}
        self._group_of: dict[Tensor, int] = {}
        self._position_of: dict[Tensor, int] = {}
        self._stepped: set[Tensor] = set()
        self._watchers: OrderedDict[int, Watcher] = OrderedDict()  # a plain dict can't be what a handle refers to
        previous = find_release(optimizer)
        if previous is not None:
            previous.remove()
        self._before_step = optimizer.register_step_pre_hook(self._begin_step)
        self._hook_parameters()
        optimizer.gradient_release = self

    def remove(self) -> None:
        """Leave the gradients to ``optimizer.step()`` again."""
        for hook in (*self._hooks.values(), self._before_step):
            hook.remove()
        self._hooks.clear()
        if find_release(self._optimizer) is self:
            del self._optimizer.gradient_release

    def watch(self, watcher: Watcher) -> RemovableHandle:
        """Have a function called for each parameter after its step, while its gradient is still there.

        Args:
            watcher: A function of the parameter and its param group.

        Returns:
            A handle, whose ``remove()`` ends that.
        """
        handle = RemovableHandle(self._watchers)
        self._watchers[handle.id] = watcher
        return handle

    def _begin_step(self, *_: Any) -> None:
        """Begin to count gradients anew: before the backward pass in ``step(closure)``, else after it."""
        self._stepped.clear()
        for group in self._optimizer.param_groups:
            _check_group(group)
        self._hook_parameters()

    def _hook_parameters(self) -> None:
        """Hook the parameters that are trained and have no hook yet, as one that was unfrozen since."""
        position = 0
        for number, group in enumerate(self._optimizer.param_groups):
            for param in group["params"]:
                self._position_of[param] = position
                position += 1
                if param.requires_grad and param not in self._hooks:
                    _remove_release_of(param)
                    self._group_of[param] = number
                    self._hooks[param] = param.register_post_accumulate_grad_hook(_Hook(self))

    def step_parameter(self, param: Tensor) -> None:
        """Step a parameter, and drop its gradient; torch calls it when all of the gradient has been added up."""
        if param in self._stepped:
            raise RuntimeError(
                f"{self._name(param)} got a second gradient before optimizer.step(), and the first has been used and "
                "dropped. With release_gradients there is one backward pass a step: do not accumulate gradients over "
                "batches or evaluate a closure twice, or call remove() on the release"
            )
        group = self._optimizer.param_groups[self._group_of[param]]
        check_before_step(group)
        tensors = StepTensors.empty()
        with torch.no_grad():
            self._optimizer._init_group({**group, "params": [param]}, *tensors)
            if tensors.rounding_seeds:  # which go by a parameter's position among all
                seed = make_seed(group["rounding_seed"], self._position_of[param])
                tensors = tensors._replace(rounding_seeds=[seed])
            sums = self._optimizer.step_sums
            update_group(group, tensors, grad_scale=None, found_inf=None, skip=None, sums=sums)
            self._stepped.add(param)
            for watcher in tuple(self._watchers.values()):
                watcher(param, group)
        param.grad = None

    def _name(self, param: Tensor) -> str:
        return parameter_names(self._model).get(param, (f"A parameter of shape {tuple(param.shape)}",))[0]


class _Hook:
    """A hook of a parameter; it holds its release weakly, for the garbage collector does not see into such hooks."""

    def __init__(self, release: GradientRelease) -> None:
        self.release = weakref.ref(release)

    def __call__(self, param: Tensor) -> None:
        release = self.release()
        if release is not None:
            release.step_parameter(param)


def find_release(optimizer: Optimizer) -> GradientRelease | None:
    """Return the release of an optimizer's gradients, or None.

    Args:
        optimizer: Any.
    """
    return getattr(optimizer, "gradient_release", None)


def _remove_release_of(param: Tensor) -> None:
    """Remove an earlier release that holds a parameter: else its optimizer would take the gradients."""
    for hook in tuple((getattr(param, "_post_accumulate_grad_hooks", None) or {}).values()):
        release = hook.release() if isinstance(hook, _Hook) else None
        if release is not None:
            release.remove()


def _check_ranks(model: nn.Module) -> None:
    """Raise ValueError if gradients are added up over ranks, which is done after each has been used."""
    wrappers = {type(module).__name__ for module in model.modules()} & set(REDUCING_WRAPPERS)
    distributed = torch.distributed
    ranks = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if wrappers or ranks > 1:
        found = f"the model has a {wrappers.pop()}" if wrappers else f"torch.distributed has {ranks} ranks"
        raise ValueError(
            f"release_gradients steps a parameter before its gradient is added up over ranks, and {found}: leave "
            "release_gradients out, or train in one process"
        )


def _check_group(group: dict[str, Any]) -> None:
    """Raise ValueError if an option of a param group needs all gradients at once, or RuntimeError without a kernel."""
    if group["nonfinite"] != "propagate":
        raise ValueError(
            f"nonfinite={group['nonfinite']!r} looks at all gradients before the first weight moves, and "
            "release_gradients has moved most by then: leave nonfinite out; max_update_to_lr=10 bounds each step"
        )
    if group["differentiable"]:
        raise ValueError(
            "differentiable=True has autograd go through the step, which release_gradients takes within the backward "
            "pass: leave one of the two out"
        )
    if group["fused"] and group["params"]:
        load_implementation(group["params"][0].device)

"""The states of the generators of random numbers that all code in a process shares, as tensors and plain numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

States = dict[str, Any]


def collect_states(device: torch.device) -> States:
    """Return the states of torch's, NumPy's and Python's global generators, in what ``weights_only`` loads.

    Args:
        device: The device that the process trains on; its generator's state is among them, unless it is the CPU.
    """
    numpy_state = np.random.get_state(legacy=False)
    generator = _get_device_module(device)
    return {
        "torch": torch.get_rng_state(),
        "device": None if generator is None else generator.get_rng_state().cpu(),
        "device_type": device.type,
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "python": random.getstate(),
    }


def restore_states(states: States, device: torch.device) -> None:
    """Set the generators to what :func:`collect_states` returned; that of the device if it is of the same type."""
    torch.set_rng_state(states["torch"].cpu())
    generator = _get_device_module(device)
    if generator is not None and states["device_type"] == device.type:
        generator.set_rng_state(states["device"].cpu())
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))


def gather_from_ranks(value: Any, world_size: int) -> list[Any]:
    """Return a value of each rank, in their order, on every rank; each must call this.

    Args:
        value: Anything that can be pickled.
        world_size: Number of ranks.
    """
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def _get_device_module(device: torch.device) -> Any:
    """Return the module, such as ``torch.cuda``, of a device that has a generator; None for the CPU."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    return module if hasattr(module, "get_rng_state") else None

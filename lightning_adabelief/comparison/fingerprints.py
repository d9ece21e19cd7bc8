"""Digests by which two runs are known to have begun alike."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

DIGITS = 16
"""The number of hexadecimal digits of a digest."""


def digest_tensors(nest: Any) -> str:
    """Return a digest of the tensors in a nest: the first 16 hexadecimal digits of SHA-256.

    Args:
        nest: A tensor, or dicts, lists, tuples and dataclasses of them, one in another. What is no tensor is left out,
            and so is a parameter that takes its shape from the first batch.

    Returns:
        The digest of their shapes, types and values, in order.
    """
    digest = hashlib.sha256()
    for tensor in _iterate_tensors(nest):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def _iterate_tensors(nest: Any) -> Iterator[Tensor]:
    if isinstance(nest, Tensor):
        if not is_lazy(nest):
            yield nest
    elif isinstance(nest, Mapping):
        for value in nest.values():
            yield from _iterate_tensors(value)
    elif isinstance(nest, list | tuple):
        for value in nest:
            yield from _iterate_tensors(value)
    elif dataclasses.is_dataclass(nest):
        for field in dataclasses.fields(nest):
            yield from _iterate_tensors(getattr(nest, field.name))

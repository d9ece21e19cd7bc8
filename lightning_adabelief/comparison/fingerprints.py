"""Digests by which two runs are known to have begun alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
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
        The digest, of names in dicts, shapes, types and values.
    """
    digest = hashlib.sha256()

    def add(tensor: Tensor) -> Tensor:
        if not is_lazy(tensor):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return tensor

    if isinstance(nest, Mapping):
        digest.update(" ".join(map(str, nest)).encode())
    apply_to_collection(nest, Tensor, add)
    return digest.hexdigest()[:DIGITS]

"""Loading and comparison of checkpoints."""

import inspect

import pytorch_lightning as pl
import torch

WEIGHTS_ONLY = {"weights_only": True} if "weights_only" in inspect.signature(pl.Trainer.fit).parameters else {}
"""The option of Lightning's, new in 2.6, to load plain data alone."""


def assert_equal(one, other, path=""):
    """Hold two trees of dicts, lists and tuples to the same keys and, to the bit, the same tensors and values."""
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(other, one, rtol=0, atol=0, equal_nan=True, msg=path)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for place, (its, others) in enumerate(zip(one, other, strict=True)):
            assert_equal(its, others, f"{path}/{place}")
    else:
        assert one == other, path

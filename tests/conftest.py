"""The fixtures of all tests."""

import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores, and what they start does too
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Weights and noise are the same in every run of a test."""
    torch.manual_seed(0)


RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE")
"""The variables that Lightning's DDP sets, and that every process that is started later would take for its own."""


@pytest.fixture(autouse=True)
def not_distributed():
    """A test that trains by DDP leaves neither its process group nor its rank to the tests after it."""
    before = {name: os.environ[name] for name in RANK_VARIABLES if name in os.environ}
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in RANK_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(before)

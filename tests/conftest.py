"""What every test starts from."""

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

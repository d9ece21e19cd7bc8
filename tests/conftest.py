"""What every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Weights and noise are the same in every run of a test."""
    torch.manual_seed(0)

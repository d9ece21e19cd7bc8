"""A mark for tests of FSDP2 on a CPU."""

import pytest
import torch

needs_fsdp2_on_cpu = pytest.mark.skipif(
    not torch.distributed.is_available() or not hasattr(torch.cpu.Stream, "record_event"),
    reason="torch.distributed shards on CPUs as of torch 2.7",
)
"""Skips a test that calls ``fully_shard`` where there is no GPU."""

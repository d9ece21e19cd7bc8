"""Two processes: a gradient that is not finite on one of them is a skipped step, or an error, on both."""

import copy
import math
import os
import tempfile
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_adabelief import AdaBelief
from lightning_adabelief.optim import state as state_module
from tests.optim.test_sharded import RANKS, checkpoint_of, full_state, load, make_model, shard, train
from tests.sharding import needs_fsdp2_on_cpu

IMPLEMENTATIONS = {
    "forloop": dict(foreach=False),
    "foreach": dict(foreach=True),
    "fused": dict(fused=True),
    "capturable forloop": dict(foreach=False, capturable=True),
    "capturable foreach": dict(foreach=True, capturable=True, amsgrad=True, weight_decay=0.1),
}


def to_local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def local_values(model, optimizer):
    """Return copies of this rank's part of each parameter and of its state."""
    return copy.deepcopy(
        [[to_local(param.detach()), *map(to_local, optimizer.state[param].values())] for param in model.parameters()]
    )


def spoil_on_rank_1(model):
    """Make a gradient NaN that only rank 1 holds: its copy of a parameter, or its shard."""
    if dist.get_rank() == 1:
        local = to_local(next(model.parameters()).grad)
        local[-1, -1] = math.nan


def backward(model, t):
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(t))
    model.zero_grad()
    model(x).square().mean().backward()


def check_skip(make):
    for options in IMPLEMENTATIONS.values():
        model = make()
        optimizer = AdaBelief(model.parameters(), nonfinite="skip", **options)
        train(model, optimizer, range(7))
        before = local_values(model, optimizer)
        backward(model, 7)
        spoil_on_rank_1(model)
        optimizer.step()
        torch.testing.assert_close(local_values(model, optimizer), before, rtol=0, atol=0)
        assert optimizer.skipped_steps == 1
        train(model, optimizer, range(8, 10))
        assert optimizer.skipped_steps == 1 and optimizer.state[next(model.parameters())]["step"] == 9


def check_raise(make):
    model = make()
    optimizer = AdaBelief(model.named_parameters(), nonfinite="raise")
    train(model, optimizer, range(3))
    before = local_values(model, optimizer)
    backward(model, 3)
    spoil_on_rank_1(model)
    message = r"in 0.weight \(norm nan\)" if dist.get_rank() == 1 else "not finite on another rank"
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    torch.testing.assert_close(local_values(model, optimizer), before, rtol=0, atol=0)


def check_checkpoint(folder):
    import torch.distributed.checkpoint as dcp

    model = shard(make_model())
    optimizer = AdaBelief(model.parameters(), nonfinite="skip")
    train(model, optimizer, range(3))
    backward(model, 3)
    spoil_on_rank_1(model)
    optimizer.step()
    dcp.save(checkpoint_of(model, optimizer), checkpoint_id=folder)
    twin_model = shard(make_model())
    twin = AdaBelief(twin_model.parameters(), nonfinite="skip")
    load(twin_model, twin, folder)
    assert twin.skipped_steps == 1
    for each in ((model, optimizer), (twin_model, twin)):
        train(*each, steps=range(4, 7))
    torch.testing.assert_close(full_state(twin_model, twin), full_state(model, optimizer), rtol=0, atol=0)


def worker(rank, folder):
    warnings.simplefilter("ignore")  # torch.distributed's own
    state_module._get_capturable_supported_devices = lambda: ["cpu"]
    os.environ |= {"MASTER_ADDR": "localhost"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    try:
        for make in (make_model, lambda: shard(make_model())):
            check_skip(make)
            check_raise(make)
        check_checkpoint(f"{folder}/checkpoint")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@needs_fsdp2_on_cpu
def test_two_ranks_skip_or_raise_together():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, args=(folder,), nprocs=RANKS)

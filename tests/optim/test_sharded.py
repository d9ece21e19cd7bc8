"""Parameters sharded by fully_shard over two processes: what the unsharded run gives, and its checkpoints."""

import copy
import os
import tempfile
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_adabelief import AdaBelief, beliefs
from tests.optim.test_packed_step import DTYPES
from tests.sharding import needs_fsdp2_on_cpu

RANKS = 2
STEPS = 12
OPTIONS = {
    "forloop": dict(foreach=False, weight_decay=0.1),
    "foreach": dict(foreach=True, weight_decay=0.1),
    "fused": dict(fused=True, weight_decay=0.1),
    "amsgrad, coupled": dict(foreach=True, amsgrad=True, weight_decay=0.1, weight_decouple=False, warmup=5),
    "float64 lr": dict(lr=torch.tensor(3e-3, dtype=torch.float64), rectify=False),
}

LARGE = 200, 65
"""Sizes of a model whose first weight is packed, in uneven shards, and its second is of one row, too small for it."""

CHECKPOINTED = dict(
    amsgrad=True, weight_decay=0.01, fixed_decay=True
)  # loading takes a step at lr 0, which moves nothing


def make_model(dtype=torch.float32, sizes=(5, 3)):
    torch.manual_seed(0)
    # 3 rows on 2 ranks: uneven shards; 1 row: an empty one.
    inputs, hidden = sizes
    return torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)).to(dtype)


def shard(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))


def train(model, optimizer, steps=range(STEPS)):
    """The same batches on every rank, so that their mean gradient is the unsharded run's."""
    dtype = next(model.parameters()).dtype
    for t in steps:
        x = torch.randn(8, model[0].in_features, generator=torch.Generator().manual_seed(t)).to(dtype)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def full_tensor(tensor):
    """Return the full tensor; every rank must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def full_state(model, optimizer):
    params = [(param, optimizer.state[param]) for param in model.parameters()]
    return [[full_tensor(param.detach()), *(full_tensor(value) for value in state.values())] for param, state in params]


def check_implementations():
    for options in OPTIONS.values():
        plain, sharded = make_model(), shard(make_model())
        optimizers = [AdaBelief(model.parameters(), **copy.deepcopy(options)) for model in (plain, sharded)]
        train(plain, optimizers[0])
        train(sharded, optimizers[1])
        torch.testing.assert_close(full_state(sharded, optimizers[1]), full_state(plain, optimizers[0]))


def check_state_stays_float32():
    from torch.distributed.tensor import DTensor

    model = shard(make_model(torch.bfloat16))
    optimizer = AdaBelief(model.parameters())
    train(model, optimizer)
    twin = AdaBelief(model.parameters())
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for param in model.parameters():
        for key, dtype in (
            ("exp_avg", torch.float32),
            ("exp_avg_var", torch.float32),
            ("weight_correction", torch.int8),
        ):
            value, loaded = optimizer.state[param][key], twin.state[param][key]
            assert isinstance(loaded, DTensor) and loaded.dtype == dtype
            assert torch.equal(loaded.to_local(), value.to_local())
        assert not isinstance(twin.state[param]["step"], DTensor) and twin.state[param]["step"] == STEPS


def check_weights_of_16_bits():
    for switches in (dict(foreach=False), dict(foreach=True), dict(fused=True)):
        for bits in (32, 16):
            plain, sharded = make_model(torch.bfloat16), shard(make_model(torch.bfloat16))
            options = dict(lr=1e-4, weight_decay=0.1, master_weight_bits=bits, **switches)
            optimizers = [AdaBelief(model.parameters(), **options) for model in (plain, sharded)]
            train(plain, optimizers[0])
            train(sharded, optimizers[1])
            # Gradients in bfloat16 are summed in another order, and shards count their own elements.
            expected, actual = full_state(plain, optimizers[0]), full_state(sharded, optimizers[1])
            torch.testing.assert_close([row[0] for row in actual], [row[0] for row in expected], rtol=0.02, atol=1e-3)
            for param in sharded.parameters():
                state = optimizers[1].state[param]
                assert ("weight_correction" in state) == (bits == 32)
                if bits == 32:
                    assert state["weight_correction"].to_local().shape == param.to_local().shape


def check_switch():
    plain, sharded = make_model(), shard(make_model())
    switched = []
    for model in (plain, sharded):
        adam = torch.optim.Adam(model.parameters(), amsgrad=True)
        train(model, adam)
        switched.append(AdaBelief.like(adam))
        train(model, switched[-1], steps=range(STEPS, 2 * STEPS))
    torch.testing.assert_close(full_state(sharded, switched[1]), full_state(plain, switched[0]))


def check_averages_of_fewer_bits():
    from torch.distributed.tensor import DTensor

    for bits, options in ((16, OPTIONS["forloop"]), (8, OPTIONS["amsgrad, coupled"]), (8, OPTIONS["fused"])):
        plain, sharded = make_model(sizes=LARGE), shard(make_model(sizes=LARGE))
        optimizers = [AdaBelief(m.parameters(), state_bits=bits, **copy.deepcopy(options)) for m in (plain, sharded)]
        train(plain, optimizers[0], steps=range(1))
        train(sharded, optimizers[1], steps=range(1))
        (state, *_), (own, *_) = (list(optimizer.state.values()) for optimizer in optimizers)
        for name in [name for name in own if name != "step"]:
            assert isinstance(own[name], DTensor) and own[name].shape == state[name].shape
            assert own[name].dtype == DTYPES[bits] and own[name].to_local().shape[0] == (33, 32)[dist.get_rank()]
            # A shard counts its own elements: the first draws as the whole does, the others by other numbers.
            is_drawn = name == "exp_avg_var" or (bits == 16 and name == "exp_avg")
            rows = slice(None, 33 if is_drawn else None)
            assert torch.equal(own[name].full_tensor()[rows], state[name][rows])
        train(plain, optimizers[0], steps=range(1, STEPS))
        train(sharded, optimizers[1], steps=range(1, STEPS))
        for ours, theirs in zip(sharded.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.detach().full_tensor(), theirs.detach(), rtol=0.01, atol=0.01)
        check_beliefs(sharded, optimizers[1], bits, options)


def check_beliefs(sharded, optimizer, bits, options):
    """The figures of shards are those of one process that has the same state."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        get_state_dict,
        set_state_dict,
    )

    whole = StateDictOptions(full_state_dict=True)
    model_state, optimizer_state = get_state_dict(sharded, optimizer, options=whole)
    assert optimizer_state["state"]["0.weight"]["exp_avg"].dtype == DTYPES[bits]
    grads = [param.grad.full_tensor() for param in sharded.parameters()]
    figures = beliefs.measure(optimizer, sharded)
    plain = make_model(sizes=LARGE)
    twin = AdaBelief(plain.parameters(), state_bits=bits, **copy.deepcopy(options))
    set_state_dict(plain, twin, model_state_dict=model_state, optim_state_dict=optimizer_state)
    for param, grad in zip(plain.parameters(), grads, strict=True):
        param.grad = grad
    assert beliefs.measure(twin, plain).layers == {
        name: pytest.approx(statistics, rel=1e-4, nan_ok=True) for name, statistics in figures.layers.items()
    }

    again_model = shard(make_model(sizes=LARGE))
    again = AdaBelief(again_model.parameters(), state_bits=bits, **copy.deepcopy(options))
    whole_state = get_optimizer_state_dict(plain, twin)
    set_state_dict(again_model, again, model_state_dict=model_state, optim_state_dict=whole_state, options=whole)
    torch.testing.assert_close(full_state(again_model, again), full_state(sharded, optimizer), rtol=0, atol=0)


def check_ranks_of_ddp_stay_equal():
    for bits, options in ((16, OPTIONS["foreach"]), (8, OPTIONS["amsgrad, coupled"])):
        model = make_model(sizes=LARGE)
        optimizer = AdaBelief(model.parameters(), state_bits=bits, **options)
        replicated = torch.nn.parallel.DistributedDataParallel(model)
        for t in range(4):
            x = torch.randn(8, LARGE[0], generator=torch.Generator().manual_seed(RANKS * t + dist.get_rank()))
            optimizer.zero_grad()
            replicated(x).square().mean().backward()
            optimizer.step()
        for tensor in (value for param, *state in full_state(model, optimizer) for value in (param, *state)):
            gathered = [torch.empty_like(tensor) for _ in range(RANKS)]
            dist.all_gather(gathered, tensor.contiguous())
            assert torch.equal(*gathered)


def checkpoint_of(model, optimizer):
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    return {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}


def load(model, optimizer, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    checkpoint = checkpoint_of(model, optimizer)
    dcp.load(checkpoint, checkpoint_id=folder)
    set_model_state_dict(model, checkpoint["model"])
    set_optimizer_state_dict(model, optimizer, checkpoint["optimizer"])


def check_checkpoints(folder, dtype=torch.float32, sizes=(5, 3), **options):
    import torch.distributed.checkpoint as dcp

    model = shard(make_model(dtype, sizes))
    optimizer = AdaBelief(model.parameters(), lr=1e-2, **CHECKPOINTED, **options)
    train(model, optimizer)
    dcp.save(checkpoint_of(model, optimizer), checkpoint_id=folder)

    twin_model = shard(make_model(dtype, sizes))
    twin = AdaBelief(twin_model.parameters(), lr=1e-3, **CHECKPOINTED, **options)
    load(twin_model, twin, folder)
    assert twin.param_groups[0]["lr"] == 1e-2
    torch.testing.assert_close(full_state(twin_model, twin), full_state(model, optimizer), rtol=0, atol=0)
    for each in ((model, optimizer), (twin_model, twin)):
        train(*each, steps=range(STEPS, 2 * STEPS))
    continued = full_state(model, optimizer)
    torch.testing.assert_close(full_state(twin_model, twin), continued, rtol=0, atol=0)
    return continued


def worker(rank, folder):
    warnings.simplefilter("ignore")  # torch.distributed's own
    warnings.filterwarnings("error", message=".*into AdaBelief")  # these checkpoints are AdaBelief's
    os.environ |= {"MASTER_ADDR": "localhost"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    try:
        check_implementations()
        check_state_stays_float32()
        check_weights_of_16_bits()
        check_switch()
        check_averages_of_fewer_bits()
        check_ranks_of_ddp_stay_equal()
        check_checkpoints(f"{folder}/checkpoint-bfloat16", torch.bfloat16)
        continued = [
            check_checkpoints(f"{folder}/checkpoint"),
            check_checkpoints(f"{folder}/checkpoint-packed", sizes=LARGE, state_bits=8),
        ]
        check_checkpoints(f"{folder}/checkpoint-16-bits", sizes=LARGE, state_bits=16)
        if rank == 0:
            torch.save(continued, f"{folder}/continued.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@needs_fsdp2_on_cpu
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process is the intent
def test_two_ranks_do_as_one_and_one_goes_on_from_their_checkpoint():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, args=(folder,), nprocs=RANKS)
        plain, packed = torch.load(f"{folder}/continued.pt")
        torch.testing.assert_close(go_on_alone(f"{folder}/checkpoint"), plain)
        # The rows of the second rank draw by other numbers now.
        alone = go_on_alone(f"{folder}/checkpoint-packed", sizes=LARGE, state_bits=8)
        torch.testing.assert_close([row[0] for row in alone], [row[0] for row in packed], rtol=0.01, atol=0.01)


def go_on_alone(checkpoint, sizes=(5, 3), **options):
    model = make_model(sizes=sizes)
    optimizer = AdaBelief(model.parameters(), **CHECKPOINTED, **options)
    load(model, optimizer, checkpoint)
    assert optimizer.param_groups[0]["lr"] == 1e-2
    train(model, optimizer, steps=range(STEPS, 2 * STEPS))
    return full_state(model, optimizer)

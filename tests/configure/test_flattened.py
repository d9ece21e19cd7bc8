"""Groups under FSDP1, whose parameters are flat pieces of themselves when configure_adabelief is called."""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from lightning_adabelief import configure_adabelief
from tests.configure.nets import Stacked


def options_of_parameters(module):
    """From each parameter's name to its lr and weight decay."""
    groups = configure_adabelief(module, lr=1e-3, weight_decay=0.1, layer_decay=0.5).param_groups
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}


def compare_with_unsharded(rank, rendezvous):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for policy in (None, ModuleWrapPolicy({torch.nn.TransformerEncoderLayer})):  # the whole at once, or block by block
        sharded = FullyShardedDataParallel(
            Stacked(), use_orig_params=True, device_id=torch.device("cpu"), auto_wrap_policy=policy
        )
        assert all(param.ndim == 1 for param in sharded.parameters())
        assert options_of_parameters(sharded) == options_of_parameters(Stacked())
    dist.destroy_process_group()


def test_flattened_parameters_have_the_lr_and_decay_of_their_names(tmp_path):
    torch.multiprocessing.spawn(compare_with_unsharded, (str(tmp_path / "rendezvous"),), nprocs=2)

"""configure_adabelief under ModelParallelStrategy, whose parameters are DTensors when it is called (FSDP2)."""

import os
import subprocess
import sys

from tests.sharding import needs_fsdp2_on_cpu

TRAIN = """
import sys, warnings
import torch
import pytorch_lightning as pl
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from tests.configure.nets import Net, DATA, make_trainer

class Sharded(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))

    def configure_model(self):
        for layer in self.network:
            if not isinstance(layer.weight, DTensor):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])

def run(max_epochs, ckpt_path=None, strategy=ModelParallelStrategy):
    torch.manual_seed(0)
    cls = Sharded if strategy is ModelParallelStrategy else type("Whole", (Sharded,), {"configure_model": lambda s: 0})
    module = cls(lr=1e-2, weight_decay=0.1, warmup=0.5, schedule="cosine", total_steps=24)
    options = dict(strategy=strategy(process_group_backend="gloo"), devices=1) if strategy else {}
    trainer = make_trainer(max_epochs=max_epochs, use_distributed_sampler=False, **options)
    trainer.fit(module, torch.utils.data.DataLoader(DATA, batch_size=4), ckpt_path=ckpt_path)
    return module, trainer

def full(param):
    return param.full_tensor() if isinstance(param, DTensor) else param

whole, trainer = run(4)
decayed, undecayed = trainer.optimizers[0].param_groups
assert all(isinstance(param, DTensor) for param in decayed["params"])
assert decayed["param_names"] == ["network.0.weight", "network.2.weight"], decayed["param_names"]
assert trainer.optimizers[0].implementations == ["fused", "fused"], trainer.optimizers[0].implementations
trained = [full(param).detach().clone() for param in whole.parameters()]
unsharded, _ = run(4, strategy=None)
for one, other in zip(trained, unsharded.parameters(), strict=True):
    torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)
_, half = run(2)
half.save_checkpoint(sys.argv[1])
resumed, _ = run(4, sys.argv[1])
for one, other in zip(trained, resumed.parameters(), strict=True):
    assert torch.equal(one, full(other).detach())
"""


@needs_fsdp2_on_cpu
def test_names_split_fused_path_and_resume_are_as_without_sharding(tmp_path):
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29641", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "saved")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]

"""A small transformer of torch.nn that a user of ``lightning`` or ``pytorch_lightning`` might write.

``python transformer.py TREE KIND FOLDER`` trains it in one process or on two ranks (``ddp``,
``fsdp2``) over the same global batches, in float64, where sums in another order hardly differ.
"""

import importlib
import os
import sys

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

pl = importlib.import_module(sys.argv[1])  # first, as a script's import line is

from lightning_adabelief import BeliefMonitor, configure_adabelief  # noqa: E402


class Transformer(pl.LightningModule):
    def __init__(self):
        super().__init__()
        # No biases: a key's has no gradient but that of rounding, which is 0 for sums in one order and not in another.
        layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, dropout=0.0, batch_first=True, bias=False)
        encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.model = nn.Sequential(nn.Embedding(32, 16), encoder, nn.Linear(16, 32)).double()

    def configure_model(self):
        if self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            for layer in self.model[1].layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)

    def training_step(self, batch, batch_idx):
        (tokens,) = batch
        logits = self.model(tokens[:, :-1])
        return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:])

    def configure_optimizers(self):
        return configure_adabelief(self, lr=1e-2, weight_decay=1e-2, warmup=0.2)


def train(kind, folder):
    strategies = {
        "single": dict(devices=1),
        "ddp": dict(devices=2, strategy="ddp"),
        "fsdp2": dict(
            devices=2, strategy=pl.strategies.ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
        ),
    }
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    loggers = [pl.loggers.CSVLogger(folder, "csv"), pl.loggers.TensorBoardLogger(folder, "tb")]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=2,
        logger=loggers if rank == 0 else False,
        use_distributed_sampler=False,
        callbacks=[BeliefMonitor(include="*", histograms=True)],
        gradient_clip_val=0.5,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **strategies[kind],
    )
    pl.seed_everything(0)
    tokens = torch.randint(32, (96, 9), generator=torch.Generator().manual_seed(0))
    ranks = 1 if kind == "single" else 2
    trainer.fit(Transformer(), DataLoader(TensorDataset(tokens[rank::ranks]), batch_size=16 // ranks))


if __name__ == "__main__":
    train(sys.argv[2], sys.argv[3])

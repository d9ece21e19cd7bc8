"""Train on two DDP ranks, resume from a checkpoint within an epoch, and save what each rank drew from then on."""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from lightning_adabelief.callbacks import ExactResume
from tests.callbacks.test_exact_resume import DataLoader, Drawing, Noisy

STEP = 7


class OfEachRank(pl.callbacks.Checkpoint):
    """Seed each rank for itself, save a checkpoint, and what is drawn after it."""

    def __init__(self, name, seed):
        self.name, self.seed = name, seed

    def setup(self, trainer, module, stage):
        pl.seed_everything(self.seed + trainer.global_rank, verbose=False)

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == STEP:
            trainer.save_checkpoint(folder / "x.ckpt")
            module.seen.clear()

    def on_train_end(self, trainer, module):
        weights = [param.tolist() for param in module.parameters()]
        torch.save((module.seen, weights), folder / f"{self.name}-{trainer.global_rank}.pt")


def run(name, seed, ckpt_path=None):
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp_fork",
        devices=2,
        use_distributed_sampler=False,
        max_epochs=3,
        num_sanity_val_steps=0,
        callbacks=[ExactResume(), OfEachRank(name, seed)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    train, val = DataLoader(Noisy(), batch_size=4, shuffle=True), DataLoader(Noisy(), batch_size=10)
    trainer.fit(Drawing(), train, val, ckpt_path=ckpt_path)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run("whole", 0)
    run("resumed", 7, folder / "x.ckpt")

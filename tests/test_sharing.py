"""What shares a process shares no state: Trainers in threads, copies of an optimizer, forked workers."""

import copy
import os
import threading

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_adabelief import AdaBelief, BeliefMonitor, configure_adabelief

IMPLEMENTATIONS = [dict(foreach=False), dict(foreach=True), dict(fused=True)]


class Net(pl.LightningModule):
    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layer = torch.nn.Linear(8, 4)
        for param in self.parameters():
            torch.nn.init.normal_(param, generator=generator)
        self.data = torch.randn(160, 8, generator=generator)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return configure_adabelief(self, lr=1e-2, warmup=0.2, schedule="cosine", weight_decay=0.1)

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=4)


def train(seed, folder):
    module, monitor = Net(seed), BeliefMonitor(every_n_steps=1, closing_table=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=5,
        logger=pl.loggers.CSVLogger(folder, f"seed-{seed}"),
        callbacks=[monitor],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module)
    return [param.detach().clone() for param in module.parameters()], monitor.notable_layers()


def test_two_trainers_in_two_threads_do_what_each_does_alone(tmp_path):
    alone = {seed: train(seed, tmp_path / "alone") for seed in (1, 2)}
    together = {}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: train(seed, tmp_path / "together")}))
        for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        (weights, layers), (expected_weights, expected_layers) = together[seed], alone[seed]
        assert all(map(torch.equal, weights, expected_weights))
        assert layers == expected_layers


@pytest.mark.parametrize("options", IMPLEMENTATIONS, ids=str)
def test_a_copied_optimizer_and_its_module_step_without_the_original(options):
    layer = torch.nn.Linear(3, 2)
    optimizer = AdaBelief(layer.parameters(), **options)
    step_once(layer, optimizer)
    twin_layer, twin = copy.deepcopy((layer, optimizer))
    before = snapshot(layer, optimizer)
    step_once(twin_layer, twin)
    assert snapshot(layer, optimizer) == before != snapshot(twin_layer, twin)
    step_once(layer, optimizer)
    assert snapshot(layer, optimizer) == snapshot(twin_layer, twin), "both took the same step"


class ForkedStep(Dataset):
    """Steps the optimizer in the worker that fetches an item."""

    def __init__(self, layer, optimizer):
        self.layer, self.optimizer = layer, optimizer

    def __len__(self):
        return 1

    def __getitem__(self, index):
        torch.set_num_threads(1)
        step_once(self.layer, self.optimizer)
        return os.getpid(), self.layer.weight.detach().clone()


@pytest.mark.parametrize("options", IMPLEMENTATIONS, ids=str)
def test_a_step_in_a_forked_worker_changes_nothing_here(options):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP's threads do not outlive a fork
    try:
        layer = torch.nn.Linear(3, 2)
        optimizer = AdaBelief(layer.parameters(), **options)
        step_once(layer, optimizer)
        before = snapshot(layer, optimizer)
        loader = DataLoader(
            ForkedStep(layer, optimizer), num_workers=1, batch_size=None, multiprocessing_context="fork"
        )
        ((worker, weight),) = list(loader)
        assert worker != os.getpid()
        assert snapshot(layer, optimizer) == before
        assert not torch.equal(weight, layer.weight)
    finally:
        torch.set_num_threads(threads)


def step_once(layer, optimizer):
    optimizer.zero_grad()
    layer(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def snapshot(layer, optimizer):
    states = [{name: value.tolist() for name, value in optimizer.state[p].items()} for p in layer.parameters()]
    return [param.tolist() for param in layer.parameters()], states

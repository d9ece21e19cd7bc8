"""A module and data that are not ours, as somebody's own project has them."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch.utils.data import DataLoader, TensorDataset


class Regression(pl.LightningModule):
    """Makes no optimizer: LightningCLI's ``optimizer`` does."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def measure(self, batch, name):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.network(x), y)
        self.log(name, loss, on_epoch=True, on_step=False)
        return loss

    def training_step(self, batch, batch_idx):
        return self.measure(batch, "train_loss")

    def validation_step(self, batch, batch_idx):
        self.measure(batch, "val_loss")


class TestedRegression(Regression):
    def test_step(self, batch, batch_idx):
        self.measure(batch, "test_loss")


class RegressionWithOptimizer(TestedRegression):
    def __init__(self, optimizer: OptimizerCallable = torch.optim.AdamW, width: int = 4):
        super().__init__(width)
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class RegressionWithTwoOptimizers(RegressionWithOptimizer):
    def __init__(self, first: OptimizerCallable = torch.optim.AdamW, second: OptimizerCallable | None = None):
        super().__init__(first)
        self.second = second


class RegressionWithAnyOptimizer(RegressionWithOptimizer):
    def __init__(self, optimizer: OptimizerCallable):
        super().__init__(optimizer)


class RegressionWithAFunction(RegressionWithOptimizer):
    def __init__(self, optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=0.01)):
        super().__init__(optimizer)


class StubbornRegression(TestedRegression):
    """Makes its own optimizer, whatever a config says."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class DeafRegression(RegressionWithOptimizer):
    """Takes an optimizer and does not use it."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LineData(pl.LightningDataModule):
    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.batch_size = batch_size

    def load(self, seed):
        x = torch.randn(32, 3, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=self.batch_size)

    def train_dataloader(self):
        return self.load(0)

    def val_dataloader(self):
        return self.load(1)

    def test_dataloader(self):
        return self.load(2)

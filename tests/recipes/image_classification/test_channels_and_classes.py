"""Numbers of channels and classes: taken from any DataModule, and checked against network and config."""

import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningCLI
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.catalog import find
from lightning_adabelief.recipes.image_classification import (
    DigitsDataModule,
    ImageClassifier,
    SmallCNN,
    TorchvisionNetwork,
)

OWN = """
import {lightning} as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Mine(pl.LightningDataModule):
    def __init__(self, channels: int = 1, size: int = 28, classes: int = 5):
        super().__init__()
        self.shape = (channels, size, size)
        self.classes_to_make = classes

    def setup(self, stage):
        labels = torch.arange(3 * self.classes_to_make) % self.classes_to_make
        self.images = TensorDataset(torch.rand(len(labels), *self.shape), labels)

    def train_dataloader(self):
        return DataLoader(self.images, batch_size=4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.images, batch_size=4)

    test_dataloader = val_dataloader
"""

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]

QUICK = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with the user's module, which is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("mine.py").write_text(OWN.format(lightning="pytorch_lightning"))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


def copy():
    """What the README says: copy the recipe, and name one's own DataModule in it."""
    assert main(["copy", "digits-cnn", "mine.yaml"]) == 0
    text = Path("mine.yaml").read_text()
    head, tail = text.split("\ndata:\n")
    own = "\ndata:\n  class_path: mine.Mine\n\ntrainer:\n"
    Path("mine.yaml").write_text(head + own + tail.split("\ntrainer:\n")[1])


def networks_of(checkpoint):
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    return tuple(weights["network.block1.0.weight"].shape)[1], len(weights["network.classifier.bias"])


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 5), (3, 224, 2), (4, 16, 120)])
def test_a_copied_recipe_trains_on_own_data_and_is_tested_from_its_checkpoint(channels, size, classes, capsys):
    copy()
    shape = [f"--data.channels={channels}", f"--data.size={size}", f"--data.classes={classes}"]
    assert main(["fit", "--config", "mine.yaml", *shape, *QUICK]) == 0
    out = capsys.readouterr().out
    assert "test/accuracy" in out and ("test/accuracy_top5" in out) == (classes > 5)
    best = "logs/digits-cnn/version_0/checkpoints/best.ckpt"
    assert networks_of(best) == (channels, classes)
    assert main(["test", "--config", "mine.yaml", *shape, "--ckpt_path", best]) == 0


def test_in_the_plain_lightning_cli(monkeypatch):
    copy()
    monkeypatch.setattr(sys, "argv", ["main.py", "fit", "--config", "mine.yaml", *QUICK])
    cli = LightningCLI(
        pl.LightningModule,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
    )
    assert (cli.model.network.in_channels, cli.model.network.num_classes) == (1, 5)


@pytest.mark.slow  # tests/test_lightning_tree.py has a shorter one
def test_in_the_other_class_tree():
    Path("mine.py").write_text(OWN.format(lightning="lightning.pytorch"))
    copy()
    words = ["fit", "--config", "mine.yaml", *QUICK]
    subprocess.run([sys.executable, "-m", "lightning_adabelief", *words], check=True, capture_output=True)
    assert networks_of("logs/digits-cnn/version_0/checkpoints/best.ckpt") == (1, 5)


class Loaders(pl.LightningDataModule):
    """A plain DataModule around one dataset."""

    def __init__(self, dataset, batch_size=4, **attributes):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        vars(self).update(attributes)

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=self.batch_size, shuffle=True)


def images(channels=1, classes=5, number=15):
    return TensorDataset(torch.rand(number, channels, 8, 8), torch.arange(number) % classes)


def fit(module, data, tmp_path, **options):
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_steps": 1} | options,
    )
    trainer.fit(module, data)
    return trainer


class WithClasses(Dataset):
    """As torchvision's datasets: not all classes need occur in it."""

    classes = ("cat", "dog", "owl", "fox", "elk", "yak", "emu")

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.rand(1, 8, 8), index % 2


@pytest.mark.parametrize(
    ("data", "classes"),
    [
        (lambda: Loaders(images()), 5),
        (lambda: Loaders(Subset(images(), [4, 3, 2])), 5),
        (lambda: Loaders(Subset(WithClasses(), [0, 1, 2])), 7),
        (lambda: Loaders(images(), num_classes=9), 9),
        (lambda: Loaders(images(), num_classes=9, in_channels=1), 9),
        (lambda: DigitsDataModule(), 10),
    ],
    ids=["labels", "subset", "dataset's classes", "one attribute", "both attributes", "digits"],
)
def test_in_python_the_number_of_classes_is_declared_or_counted(data, classes, tmp_path):
    module = ImageClassifier(SmallCNN())
    fit(module, data(), tmp_path)
    assert module.network.num_classes == module.num_classes == classes


def test_any_network_takes_the_number_of_classes_of_the_data(tmp_path):
    module = ImageClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5)))
    fit(module, Loaders(images()), tmp_path)
    assert module.num_classes == 5


def test_looking_at_the_data_leaves_their_order_and_the_weights_as_they_were(tmp_path):
    def weights(data):
        pl.seed_everything(3, verbose=False)
        module = ImageClassifier(SmallCNN())
        fit(module, data, tmp_path, max_steps=-1, max_epochs=2)
        return module.network.classifier.weight

    dataset = images()
    assert torch.equal(weights(Loaders(dataset)), weights(Loaders(dataset, in_channels=1, num_classes=5)))


def test_a_network_from_the_data_has_the_weights_of_one_made_at_once(tmp_path):
    data = Loaders(images(), in_channels=1, num_classes=5)
    torch.manual_seed(3)
    at_once = SmallCNN(1, 5).classifier.weight.detach().clone()
    torch.manual_seed(3)
    module = ImageClassifier(SmallCNN(), optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
    fit(module, data, tmp_path)
    assert torch.equal(module.network.classifier.weight, at_once)


def test_a_checkpoint_tells_what_the_network_was_made_for(tmp_path):
    module = ImageClassifier(SmallCNN())
    fit(module, Loaders(images()), tmp_path).save_checkpoint(tmp_path / "x.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", network=SmallCNN())
    assert torch.equal(loaded.network.classifier.weight, module.network.classifier.weight)
    with pytest.raises(ValueError, match="checkpoint is of 5 classes, .* have 7"):
        ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", network=SmallCNN(1, 7))


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.rand(1, 8, 8), 0


class Several(Loaders):
    def train_dataloader(self):
        return [super().train_dataloader()] * 2


WHOLE = torch.nn.Sequential(torch.nn.Conv2d(3, 10, 8), torch.nn.Flatten())

MISMATCHES = [
    (SmallCNN(1, 10), Loaders(images(), num_classes=5), {}, "num_classes is 10 by the network and 5 by the data"),
    (SmallCNN(), Loaders(images(), num_classes=5), {"num_classes": 4}, "4 by ImageClassifier and 5 by the data"),
    (SmallCNN(), Loaders(images(classes=6)), {"num_classes": 4}, "a label [45], and with num_classes 4"),
    (SmallCNN(3, 5), Loaders(images(), in_channels=1), {}, "in_channels is 3 by the network and 1 by the data"),
    (SmallCNN(3, 5), Loaders(images()), {}, "images have 1 channels and the network takes 3"),
    (WHOLE, Loaders(images()), {}, "images have 1 channels and the network takes 3"),
    (WHOLE, Loaders(images(channels=3)), {}, r"shape \(4, 10\) and there are 5 classes"),
    (TorchvisionNetwork("resnet18"), Loaders(Endless(), batch_size=2), {}, "Endless has no length"),
    (SmallCNN(), Several(images()), {}, "Several.train_dataloader gives list, no DataLoader"),
    (SmallCNN(), DataLoader(images()), {}, "Train with a DataModule"),
]


@pytest.mark.parametrize(
    ("network", "data", "options", "message"), MISMATCHES, ids=[f"{i}: {row[3]}" for i, row in enumerate(MISMATCHES)]
)
def test_what_does_not_fit_is_an_error_that_names_both_numbers(network, data, options, message, tmp_path):
    if isinstance(data, Loaders) and isinstance(data.dataset, Endless):
        data.train_dataloader = lambda: DataLoader(data.dataset, batch_size=2)
    with pytest.raises(ValueError, match=message):
        fit(ImageClassifier(network, **options), data, tmp_path)


def test_in_the_command_a_mismatch_is_one_line(capsys):
    copy()
    assert main(["fit", "--config", "mine.yaml", "--model.num_classes=3", *QUICK]) == 1
    error = capsys.readouterr().err
    assert "There is a label" in error and "with num_classes 3 the labels are 0 to 2" in error
    assert len(error.splitlines()[-1]) < 300 and "Traceback" not in error


def test_a_module_that_knows_no_shape_says_so(tmp_path):
    module = ImageClassifier(SmallCNN())
    with pytest.raises(ValueError, match="are not known"):
        module(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="are not known"):
        pl.Trainer(logger=False, default_root_dir=tmp_path, enable_progress_bar=False).test(
            module, DataLoader(images()), verbose=False
        )


def test_digits_cnn_leaves_channels_and_classes_to_the_data():
    assert find("digits-cnn").path.read_text().count("null # the data's") == 3

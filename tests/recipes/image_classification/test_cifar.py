"""CIFAR-10 and CIFAR-100, read from a few images in the form of the real files."""

import re
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.image_classification import (
    CIFAR10DataModule,
    CIFAR100DataModule,
)
from tests.recipes.image_files import IMAGES, pack_cifar, write_cifar


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def set_up(data):
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("data_module", [CIFAR10DataModule, CIFAR100DataModule])
def test_cifar_gives_uint8_images_and_normalizes_them_on_the_device(data_module, monkeypatch):
    write_cifar("data", monkeypatch, data_module.dataset)
    data = set_up(data_module(num_workers=0, batch_size=4))
    assert len(data.test_set) == IMAGES and len(data.class_names) == data.num_classes
    batch = next(iter(data.test_dataloader()))
    images, labels = data.on_after_batch_transfer(batch, 0)
    assert batch[0].shape == (4, 3, 32, 32) and batch[0].dtype == torch.uint8 and labels.dtype == torch.int64
    expected = (batch[0] / 255 - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    torch.testing.assert_close(images, expected)


def test_cifar_trains_on_all_images_unless_a_share_is_set_apart(monkeypatch):
    write_cifar("data", monkeypatch)
    whole = set_up(CIFAR10DataModule(num_workers=0))
    assert len(whole.train_set) == 5 * IMAGES and whole.val_set is None
    split = [set_up(CIFAR10DataModule(num_workers=0, val_share=0.25)) for _ in range(2)]
    assert [len(s) for s in (split[0].train_set, split[0].val_set)] == [75, 25]
    assert not set(split[0].train_set.indices) & set(split[0].val_set.indices)
    assert split[0].val_set.indices == split[1].val_set.indices


def test_only_training_images_are_shifted_and_flipped(monkeypatch):
    write_cifar("data", monkeypatch)
    data = set_up(CIFAR10DataModule(num_workers=0, val_share=0.25))
    assert any(not torch.equal(data.train_set[0][0], data.train_set[0][0]) for _ in range(10))
    for fixed in (data.val_set, data.test_set):
        assert all(torch.equal(fixed[0][0], fixed[0][0]) for _ in range(10))


@pytest.mark.filterwarnings("ignore:AdaBelief, step")  # what BeliefMonitor says of random images is no matter here
def test_a_share_set_apart_is_validated_on(monkeypatch, capsys):
    write_cifar("data", monkeypatch)
    words = ["--config", "cifar10-resnet34", "--data.num_workers=0"]
    assert main(["fit", *words, "--trainer.fast_dev_run=true", "--data.val_share=0.2", "--data.batch_size=2"]) == 0
    assert main(["validate", *words, "--ckpt_path=null"]) == 1
    assert "With val_share 0 there is nothing to validate on. Give 0.1" in capsys.readouterr().err


@pytest.fixture
def elsewhere(monkeypatch):
    """A server from which CIFAR-10 is downloaded: the archive on it."""
    archive = pack_cifar("elsewhere", monkeypatch)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def copyfile(self, *files):
            with suppress(BrokenPipeError):  # torchvision asks twice, and hangs up on the first answer
                super().copyfile(*files)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory="elsewhere")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        yield archive
        server.shutdown()


def test_the_archive_is_downloaded_checked_and_unpacked(elsewhere):
    data = set_up(CIFAR10DataModule("data"))
    assert Path("data/cifar-10-python.tar.gz").is_file() and len(data.train_set) == 5 * IMAGES


def test_an_archive_put_into_the_folder_is_unpacked_without_a_download(monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://nowhere.invalid/cifar-10-python.tar.gz")
    pack_cifar("data", monkeypatch)
    assert len(set_up(CIFAR10DataModule("data")).test_set) == IMAGES


@pytest.mark.parametrize("name", ["cifar10-vgg11", "cifar100-vgg11"])
@pytest.mark.parametrize("download", ["true", "false"])
def test_offline_the_error_names_the_file_its_size_and_the_folder(name, download, monkeypatch, capsys):
    number = re.findall(r"\d+", name)[0]
    dataset = {"10": datasets.CIFAR10, "100": datasets.CIFAR100}[number]
    monkeypatch.setattr(dataset, "url", f"http://nowhere.invalid/cifar-{number}-python.tar.gz")
    assert main(["fit", "--config", name, "--data.root=mine", f"--data.download={download}"]) == 1
    error = capsys.readouterr().err
    assert f"cifar-{number}-python.tar.gz" in error and "into mine/" in error
    assert {"10": "170 MB", "100": "169 MB"}[number] in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_broken_download_is_the_same_error(elsewhere, capsys):
    elsewhere.write_bytes(elsewhere.read_bytes()[:-100])
    assert main(["fit", "--config", "cifar10-vgg11"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "170 MB" in error and "File not found or corrupted" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"num_workers": -1}, "num_workers: -1"),
        ({"val_share": 1.0}, "val_share: 1.0"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CIFAR10DataModule(**options)

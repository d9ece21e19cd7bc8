"""A few images in the form in which the real data sets come, so that the recipes run on files."""

import hashlib
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets

IMAGES = 20
"""A file; the real ones have 10,000 and more."""


def write_cifar(root, monkeypatch, dataset=datasets.CIFAR10):
    """Write CIFAR-10 or CIFAR-100 as pickles; torchvision then checks these files' sums instead of the real ones'."""
    folder = Path(root) / dataset.base_folder
    folder.mkdir(parents=True)
    label_key, classes = ("labels", 10) if dataset is datasets.CIFAR10 else ("fine_labels", 100)
    random = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return _md5(folder / name)

    def write_images(names):
        return [
            [
                name,
                write(
                    name,
                    {
                        "data": random.integers(0, 256, (IMAGES, 3 * 32 * 32), dtype=np.uint8),
                        label_key: [int(label) for label in np.arange(IMAGES) % classes],
                        "filenames": [f"{number}.png" for number in range(IMAGES)],
                    },
                ),
            ]
            for name, _ in names
        ]

    meta = dataset.meta | {
        "md5": write(dataset.meta["filename"], {dataset.meta["key"]: [f"class {i}" for i in range(classes)]})
    }
    monkeypatch.setattr(dataset, "train_list", write_images(dataset.train_list))
    monkeypatch.setattr(dataset, "test_list", write_images(dataset.test_list))
    monkeypatch.setattr(dataset, "meta", meta)
    return folder


def pack_cifar(root, monkeypatch, dataset=datasets.CIFAR10):
    """Write CIFAR as the archive that is downloaded, and let torchvision check this one's sum."""
    folder = write_cifar(root, monkeypatch, dataset)
    archive = Path(root) / dataset.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, dataset.base_folder)
    monkeypatch.setattr(dataset, "tgz_md5", _md5(archive))
    shutil.rmtree(folder)
    return archive


def write_image_folder(root, classes, parts=("train", "val"), images=2):
    """Write JPEGs of several sizes into a folder a class."""
    random = np.random.default_rng(0)
    for part in parts:
        for label in range(classes):
            folder = Path(root) / part / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(images):
                shape = (40 + label % 10, 50, 3)[: 2 + number % 2]  # the real ones have grayscale images among them
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()

"""PASCAL VOC, and your own images in its form or in COCO's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets import VOCDetection
from torchvision.datasets.folder import is_image_file
from torchvision.transforms import v2

from lightning_adabelief.recipes.checks import check_probability
from lightning_adabelief.recipes.image_classification.found_images import find_images
from lightning_adabelief.recipes.image_classification.image_file import read_rgb
from lightning_adabelief.recipes.object_detection.annotations import MIN_SIDE, Annotation, read_coco, read_voc
from lightning_adabelief.recipes.object_detection.detection_data import DetectionDataModule, Target
from lightning_adabelief.suggest import suggest

PASCAL_VOC = {"train": (("2007", "trainval"), ("2012", "trainval")), "test": (("2007", "test"),)}
"""Years and lists of PASCAL VOC's images, as they are usually trained and tested on."""

Parts = dict[str, list[Annotation]]


class AnnotatedImagesDataModule(DetectionDataModule):
    """PASCAL VOC 2007 and 2012, or your own images in VOC's form or in COCO's.

    ``root`` is one of:

    - the folder that PASCAL VOC's ``VOCdevkit`` is in, or is downloaded into: the 16,551 images of both
      years' ``trainval`` are trained on, and the 4,952 of the ``test`` of 2007 tested on;
    - a folder in VOC's form: images in ``JPEGImages``, an XML file for each in ``Annotations``, and lists in
      ``ImageSets/Main``: ``train.txt`` and ``val.txt``, or ``trainval.txt``, and ``test.txt`` if there is
      one. Without lists, all that have an XML file are trained on;
    - a folder with ``train.json``, and ``val.json`` and ``test.json`` if there are such, in COCO's form; or
      one such file. Their images are beside them, in a folder ``images`` beside them, or in ``image_folder``.

    Without images to test on, those to validate on are. Classes are VOC's names in alphabetical order, and
    COCO's categories in the order of their ids. Objects that are ``difficult`` (VOC) or ``iscrowd`` (COCO)
    are not trained on; finding them is neither right nor wrong. Boxes are clipped to their image, and those
    less than a pixel wide or high left out. Photos are turned upright as their EXIF data say, unless the size
    that is given with their boxes is that of the photo as it is stored.

    Args:
        root: Folder or JSON file.
        batch_size: Images per batch.
        val_share: Fraction of the images to train on, in [0, 1), that is validated on instead; for data that
            have no part to validate on.
        horizontal_flip: Probability, in [0, 1], with which a training image is flipped.
        image_folder: Folder of a COCO file's images; None for the places named above.
        predict_images: Folder of images to predict, at any depth, or one image's file; None for those that are tested
            on. Files that are left out are printed.
        num_workers: Processes that load data; None for one per CPU core, at most 16.
        download: Download PASCAL VOC if it is not in ``root``.

    Raises:
        ValueError: If ``val_share`` or ``horizontal_flip`` is out of its range, ``batch_size`` is less than 1 or
            ``num_workers`` less than 0.
    """

    SPLIT_SEED = 0

    def __init__(
        self,
        root: str | Path = "data/voc",
        batch_size: int = 2,
        val_share: float = 0.0,
        horizontal_flip: float = 0.5,
        image_folder: str | Path | None = None,
        predict_images: str | Path | None = None,
        num_workers: int | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(batch_size, num_workers)
        if not 0 <= val_share < 1:
            raise ValueError(f"Invalid val_share: {val_share}. Give a fraction of the images in [0, 1), such as 0.1")
        check_probability("horizontal_flip", horizontal_flip)
        self.root = Path(root)
        self.val_share = val_share
        self.horizontal_flip = horizontal_flip
        self.image_folder = None if image_folder is None else Path(image_folder)
        self.predict_images = None if predict_images is None else Path(predict_images)
        self.download = download

    def prepare_data(self) -> None:
        """Download and unpack PASCAL VOC if ``root`` has neither it nor images of one's own.

        Raises:
            FileNotFoundError: If it can't be downloaded; the message says which files to put where.
            ValueError: If ``root`` is a folder of something else.
        """
        predicts_others = self.predict_images and self.trainer is not None and self.trainer.state.fn == "predict"
        if predicts_others or _is_coco(self.root) or _is_voc_tree(self.root):
            return
        if self.root.suffix == ".json":
            raise FileNotFoundError(f"There is no {self.root}")
        if self.root.is_dir() and any(self.root.iterdir()) and not _has_pascal_voc(self.root):
            raise ValueError(
                f"{self.root} has neither JPEGImages and Annotations (VOC's form) nor train.json (COCO's) nor "
                "VOCdevkit (PASCAL VOC itself). Give data.root one of them, or an empty folder to download PASCAL VOC"
            )
        for year, image_set in (pair for pairs in PASCAL_VOC.values() for pair in pairs):
            self._get_pascal_voc(year, image_set)

    def setup(self, stage: str) -> None:
        """List the images and read their annotations.

        Raises:
            FileNotFoundError: If files are missing.
            ValueError: If a file can't be read as what it should be, a class appears only in images that are
                not trained on, or there is nothing to validate on.
        """
        if self.predict_images is not None:
            found = find_images(self.predict_images)
            self._print_table(str(self.predict_images), {"predict": found})
            self.predict_set = AnnotatedImages([Annotation(path, path) for path in map(Path, found.files)], [])
            if stage == "predict":
                return
        parts = self._read_parts()
        assert self.class_names is not None
        val, test = parts.get("val"), parts.get("test", parts.get("val"))
        if test is None or (val is None and stage == "validate"):
            raise ValueError(
                f"{self.root} has no images to validate or test on. Set a part apart, such as data.val_share 0.1"
            )
        if val is None and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty loader
        flip = v2.RandomHorizontalFlip(self.horizontal_flip)
        self.train_set = AnnotatedImages(parts["train"], self.class_names, flip)
        self.val_set = None if val is None else AnnotatedImages(val, self.class_names)
        self.test_set = AnnotatedImages(test, self.class_names)
        if self.predict_images is None:
            self.predict_set = self.test_set

    def _read_parts(self) -> Parts:
        """Read the annotations of each part, and the names of the classes."""
        if _is_coco(self.root):
            parts = self._read_coco_parts()
        else:
            parts = self._read_voc_tree() if _is_voc_tree(self.root) else self._read_pascal_voc()
            self.class_names = sorted({name for annotation in parts["train"] for name in annotation.names})
        if not any(annotation.names for annotation in parts["train"]):
            raise ValueError(f"None of the {len(parts['train'])} images to train on in {self.root} has an object")
        if self.val_share:
            if "val" in parts:
                raise ValueError(f"{self.root} has images to validate on, and val_share is {self.val_share}. Give 0")
            parts["train"], parts["val"] = train_test_split(
                parts["train"], test_size=self.val_share, random_state=self.SPLIT_SEED
            )
        return parts

    def _read_coco_parts(self) -> Parts:
        files = {"train": self.root}
        if self.root.is_dir():
            files = {part: self.root / f"{part}.json" for part in ("train", "val", "test")}
            files = {part: path for part, path in files.items() if path.is_file()}
        parts = {}
        for part, path in files.items():
            parts[part], names = read_coco(path, self.image_folder)
            if part == "train":
                self.class_names = names
        return parts

    def _read_voc_tree(self) -> Parts:
        lists = self.root / "ImageSets" / "Main"
        files = {part: lists / f"{part}.txt" for part in ("train", "val", "test") if (lists / f"{part}.txt").is_file()}
        if "train" in files:
            names = {part: _read_list(path) for part, path in files.items()}
        else:
            whole = lists / "trainval.txt"
            listed = whole.is_file()
            all_names = (
                _read_list(whole) if listed else sorted(p.stem for p in (self.root / "Annotations").glob("*.xml"))
            )
            names = {"train": all_names}
            if "test" in files:
                names["test"] = _read_list(files["test"])
                if not listed:
                    names["train"] = sorted(set(all_names) - set(names["test"]))
        images = {path.stem: path for path in (self.root / "JPEGImages").iterdir() if is_image_file(path.name)}
        return {part: self._read_voc_images(of_part, images) for part, of_part in names.items()}

    def _read_voc_images(self, names: list[str], images: dict[str, Path]) -> list[Annotation]:
        folder = self.root / "JPEGImages"
        paths = [images.get(name, folder / f"{name}.jpg") for name in names]
        return read_voc(paths, [self.root / "Annotations" / f"{name}.xml" for name in names])

    def _read_pascal_voc(self) -> Parts:
        parts: Parts = {}
        for part, pairs in PASCAL_VOC.items():
            sets = [VOCDetection(self.root, year, image_set) for year, image_set in pairs]
            images = [Path(path) for found in sets for path in found.images]
            parts[part] = read_voc(images, [Path(path) for found in sets for path in found.annotations])
        return parts

    def _get_pascal_voc(self, year: str, image_set: str) -> None:
        """Download and unpack one of PASCAL VOC's lists of images, unless it is there."""
        try:
            VOCDetection(self.root, year, image_set)
        except (OSError, RuntimeError):
            pass  # it is not there
        else:
            return
        try:
            if not self.download:
                raise RuntimeError("data.download is off")
            VOCDetection(self.root, year, image_set, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"PASCAL VOC {year} ({image_set}) is not in {self.root}/VOCdevkit/VOC{year}, and could not be "
                f"downloaded ({error}). Put VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar and "
                f"VOCtrainval_11-May-2012.tar (2.9 GB, from host.robots.ox.ac.uk/pascal/VOC) into {self.root} and "
                "leave data.download on: they are checked and unpacked there"
            ) from error


class AnnotatedImages(Dataset):
    """Images in files, and their objects.

    Args:
        annotations: The images and their objects.
        class_names: Names of the classes 1, 2, ...
        transform: Augmentation of an image (3, H, W) together with its boxes; None for none.

    Raises:
        ValueError: If an object is of another class.
    """

    def __init__(
        self,
        annotations: list[Annotation],
        class_names: list[str],
        transform: Callable[..., Any] | None = None,
    ) -> None:
        self.annotations = annotations
        self.labels = {name: number for number, name in enumerate(class_names, start=1)}
        self.transform = transform
        for annotation in annotations:
            for name in annotation.names:
                if name not in self.labels:
                    raise ValueError(
                        f"{annotation.source} has an object of class {name!r}, which no image to train on has. "
                        f"{suggest(name, class_names)}"
                    )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.annotations)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Load an image (3, H, W), uint8 RGB, and its objects.

        Raises:
            ValueError: If the file can't be read as an image; the message names it.
        """
        annotation = self.annotations[index]
        image = tv_tensors.Image(v2.functional.pil_to_tensor(read_rgb(annotation.image, annotation.size)))
        size = (image.shape[-2], image.shape[-1])
        corners = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
        boxes = v2.functional.clamp_bounding_boxes(tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size))
        boxes, has_area = v2.functional.sanitize_bounding_boxes(boxes, min_size=MIN_SIDE)
        labels = torch.tensor([self.labels[name] for name in annotation.names], dtype=torch.int64)[has_area]
        crowd = torch.tensor(annotation.crowd, dtype=torch.int64)[has_area]
        if self.transform is not None:
            image, boxes = self.transform(image, boxes)
        return image.as_subclass(Tensor), {
            "boxes": boxes.as_subclass(Tensor),
            "labels": labels,
            "iscrowd": crowd,
            "file": str(annotation.image),
        }


def _read_list(path: Path) -> list[str]:
    """Return the first word of each line: lists of a class have a second."""
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _is_coco(root: Path) -> bool:
    return (root.suffix == ".json" and root.is_file()) or (root / "train.json").is_file()


def _is_voc_tree(root: Path) -> bool:
    return (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir()


def _has_pascal_voc(root: Path) -> bool:
    return (root / "VOCdevkit").is_dir() or any(root.glob("VOC*.tar"))

"""scikit-learn's digits as people have images: PNG files in one folder per class."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_digits(root, per_class=None, classes=range(10)):
    """Write the digits into the folders ``zero``, ``one``, ...

    Args:
        root: The folder that holds those of the classes.
        per_class: Number of images of each class; None for all, about 180.
        classes: The digits to write.
    """
    digits = load_digits()
    for digit in classes:
        folder = Path(root) / NAMES[digit]
        folder.mkdir(parents=True)
        of_class = np.flatnonzero(digits.target == digit)[:per_class]
        for number in of_class:
            pixels = (digits.images[number] / 16 * 255).round().astype(np.uint8)  # counts from 0 to 16
            Image.fromarray(pixels).save(folder / f"{number:04}.png")

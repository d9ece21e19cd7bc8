"""scikit-learn's digits."""

import pytest
import torch

from lightning_adabelief.recipes.image_classification import DigitsDataModule


@pytest.fixture(scope="module")
def digits():
    data = DigitsDataModule()
    data.setup("fit")
    return data


def test_the_digits_are_split_once_and_for_all(digits):
    sets = (digits.train_set, digits.val_set, digits.test_set)
    assert [len(s) for s in sets] == [1077, 360, 360]
    indices = [set(s.indices) for s in sets]
    assert len(set.union(*indices)) == 1797
    again = DigitsDataModule()
    again.setup("test")
    assert again.test_set.indices == digits.test_set.indices


def test_the_split_is_stratified(digits):
    for part in (digits.train_set, digits.val_set, digits.test_set):
        counts = torch.bincount(torch.tensor([int(label) for _, label in part]), minlength=10)
        shares = counts / len(part)
        assert (shares - 0.1).abs().max() < 0.005


def test_images_are_float32_in_0_to_1_and_labels_int64(digits):
    images, labels = next(iter(digits.train_dataloader()))
    assert images.shape == (64, 1, 8, 8) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert labels.shape == (64,) and labels.dtype == torch.int64


def test_a_batch_size_of_zero_is_an_error():
    with pytest.raises(ValueError, match="batch_size: 0"):
        DigitsDataModule(batch_size=0)

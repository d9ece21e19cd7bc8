"""Digests of tensors."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from lightning_adabelief.comparison.fingerprints import digest_tensors

Pair = namedtuple("Pair", "image, label")


@dataclass(frozen=True)
class Sample:
    image: torch.Tensor
    name: str


IMAGES = [torch.arange(6.0).reshape(2, 3), torch.tensor(3), torch.ones(3, dtype=torch.bfloat16).requires_grad_()]


@pytest.mark.parametrize(
    "nest",
    [
        IMAGES,
        tuple(IMAGES),
        Pair(IMAGES[0], IMAGES[1:]),
        {"image": IMAGES[0], "others": {"label": IMAGES[1], "size": (IMAGES[2], "3")}},
        [Sample(IMAGES[0], "one"), *IMAGES[1:], 7, None],
        [*IMAGES, torch.nn.LazyLinear(3).weight],
    ],
)
def test_the_digest_is_of_the_tensors_in_whatever_they_are(nest):
    assert digest_tensors(nest) == digest_tensors(IMAGES) and len(digest_tensors(nest)) == 16


@pytest.mark.parametrize(
    "other",
    [
        IMAGES[0] + 1e-6,
        IMAGES[0].reshape(3, 2),
        IMAGES[0].double(),
        IMAGES[0].T.contiguous().T.flip(0),
        [],
    ],
)
def test_other_values_shapes_or_types_have_another_digest(other):
    assert digest_tensors(other) != digest_tensors(IMAGES[0])


def test_values_alone_count_not_how_they_lie_in_memory():
    assert digest_tensors(IMAGES[0].T.contiguous().T) == digest_tensors(IMAGES[0])

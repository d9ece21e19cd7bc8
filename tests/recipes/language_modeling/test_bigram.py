"""The bigram model that a network is compared with."""

import pytest
import torch

from lightning_adabelief.recipes.language_modeling import InterpolatedBigram


def test_its_perplexity_is_the_formulas():
    train, val, test = (torch.tensor(words) for words in ([1, 2, 1, 2, 3, 1], [1, 2, 3], [2, 0, 1]))
    bigram = InterpolatedBigram(train, val, vocabulary_size=4, first=0)
    a, b, c = bigram.weights.flatten().tolist()
    assert a + b + c == pytest.approx(1)
    # The words before 2, 0 and 1 are 0, 2 and 0. In training 0 is followed by 1 once, and 2 by 1 and 3.
    product = (b * 3 / 10 + c / 4) * (b * 1 / 10 + c / 4) * (a + b * 4 / 10 + c / 4)
    assert bigram.perplexity(test) == pytest.approx(product ** (-1 / 3))


@pytest.mark.parametrize("first", [0, 7], ids=["after a word that was seen", "after one that was not"])
def test_its_probabilities_add_up_to_one(first):
    torch.manual_seed(0)
    train = torch.randint(5, (400,))
    bigram = InterpolatedBigram(train, train[:50], 8, first)
    total = sum(1 / bigram.perplexity(torch.tensor([word])) for word in range(8))
    assert total == pytest.approx(1)


def test_the_weights_are_the_best_for_the_validation_text():
    torch.manual_seed(0)
    words = torch.randint(3, (300,)).cumsum(0) % 10
    bigram = InterpolatedBigram(words[:200], words[200:], 10, first=0)
    best = bigram.perplexity(words[200:])
    for shift in ((0.05, -0.05, 0), (-0.05, 0.05, 0), (-0.05, 0, 0.05)):
        changed = InterpolatedBigram(words[:200], words[200:], 10, first=0)
        changed.weights = (bigram.weights + torch.tensor(shift).unsqueeze(1)).clamp(min=0)
        changed.weights /= changed.weights.sum()
        assert changed.perplexity(words[200:]) >= best - 1e-6

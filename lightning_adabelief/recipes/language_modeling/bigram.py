"""An interpolated bigram model: what a language model should be better than."""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 50


class InterpolatedBigram:
    """A word's probability by the word before it, by its frequency, and as one of all, in a mixture.

    ``P(w|v) = a count(v w) / count(v) + b P(w) + c / V`` (Jelinek and Mercer, 1980), with V words and
    ``P(w) = (count(w) + 1) / (count() + V)``; after a word v that was not counted, P(w) is in the first term's place.

    Args:
        train: Numbers of the words (n,) that are counted.
        val: Numbers of the words (m,) that a, b and c are fitted to, by expectation maximization.
        vocabulary_size: Number of words.
        first: Number of the word before the first of a text.

    Attributes:
        weights: a, b and c.
    """

    def __init__(self, train: Tensor, val: Tensor, vocabulary_size: int, first: int) -> None:
        self.vocabulary_size = vocabulary_size
        self.first = first
        self._words = torch.bincount(train, minlength=vocabulary_size)
        self._contexts = torch.bincount(self._shift(train), minlength=vocabulary_size)
        self._pairs, self._pair_counts = self._number_pairs(train).unique(return_counts=True)
        self.weights = torch.full((3, 1), 1 / 3, dtype=torch.float64)
        parts = self._compute_parts(val)
        for _ in range(ITERATIONS):
            shares = self.weights * parts
            self.weights = (shares / shares.sum(0)).mean(1, keepdim=True)

    def perplexity(self, words: Tensor) -> float:
        """Return the perplexity of a text, given as the numbers (n,) of its words."""
        probabilities = (self.weights * self._compute_parts(words)).sum(0)
        return probabilities.log().mean().neg().exp().item()

    def _compute_parts(self, words: Tensor) -> Tensor:
        """Return the three probabilities (3, n) of each word."""
        pairs = self._number_pairs(words)
        places = torch.searchsorted(self._pairs, pairs).clamp(max=len(self._pairs) - 1)
        counts = torch.where(self._pairs[places] == pairs, self._pair_counts[places], 0)
        context_counts = self._contexts[self._shift(words)]
        by_frequency = (self._words[words] + 1.0).double() / (self._words.sum() + self.vocabulary_size)
        by_context = (counts.double() / context_counts).where(context_counts > 0, by_frequency)
        return torch.stack([by_context, by_frequency, torch.full_like(by_context, 1 / self.vocabulary_size)])

    def _number_pairs(self, words: Tensor) -> Tensor:
        return self._shift(words) * self.vocabulary_size + words

    def _shift(self, words: Tensor) -> Tensor:
        """Return the word before each."""
        return torch.cat([words.new_tensor([self.first]), words[:-1]])

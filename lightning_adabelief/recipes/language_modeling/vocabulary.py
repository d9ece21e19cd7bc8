"""Words and their numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"

PATTERNS = {
    "words": re.compile(r"<unk>|\w+|[^\w\s]|\n"),
    "whitespace": re.compile(r"\S+|\n"),
}
"""From a name to what it takes for a word: an end of line is one in both."""


class Vocabulary:
    """The words of a text, numbered from the most frequent on.

    Args:
        words: All words in the order of their numbers; ``<unk>`` and ``<eos>`` are among them.
        tokens: A name in :data:`PATTERNS`.

    Attributes:
        unknown: Number of the word that stands for all others.
        end_of_line: Number of the end of a line.
    """

    def __init__(self, words: Sequence[str], tokens: str) -> None:
        self.words = list(words)
        self.tokens = tokens
        self._numbers = {word: number for number, word in enumerate(self.words)}
        self.unknown = self._numbers[UNKNOWN]
        self.end_of_line = self._numbers[END_OF_LINE]

    @classmethod
    def from_text(cls, text: str, tokens: str, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
        """Number the words of a text.

        Args:
            text: The part to train on, and no other.
            tokens: ``"words"`` for words and signs; ``"whitespace"`` for what stands between blanks.
            min_count: Leave out words that are less frequent.
            max_size: Keep this many of the most frequent words; None for all.
        """
        counts = Counter(split_into_words(text, tokens))
        for special in (UNKNOWN, END_OF_LINE):
            counts[special] = max(counts[special], min_count)
        # Of equally frequent words the first of the alphabet: no order of a file decides.
        in_order = sorted(counts, key=lambda word: (-counts[word], word))
        frequent = [word for word in in_order if counts[word] >= min_count]
        kept = [word for word in frequent if word not in (UNKNOWN, END_OF_LINE)]
        return cls([UNKNOWN, END_OF_LINE, *kept[: None if max_size is None else max_size - 2]], tokens)

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.words)

    def encode(self, text: str) -> Tensor:
        """Return the numbers (n,) of a text's words."""
        words = split_into_words(text, self.tokens)
        return torch.tensor([self._numbers.get(word, self.unknown) for word in words], dtype=torch.long)

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of words' numbers, with blanks where they are likely: their number is not known."""
        text = ""
        for number in numbers:
            word = "\n" if number == self.end_of_line else self.words[number]
            text += word if not text or _are_joined(text[-1], word) else f" {word}"
        return text


def split_into_words(text: str, tokens: str) -> list[str]:
    """Split a text into words; the end of a line is the word ``<eos>``."""
    return [END_OF_LINE if word == "\n" else word for word in PATTERNS[tokens].findall(text)]


def _are_joined(before: str, word: str) -> bool:
    """True if there is no blank between a character and the word after it."""
    return "\n" in (before, word) or before in "([{" or word in {".", ",", ";", ":", ")", "]", "}", "?", "!"}

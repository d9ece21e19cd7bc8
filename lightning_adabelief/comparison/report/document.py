"""The report as plain data, which the templates of HTML and Markdown write out: both have the same content."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table, with a note below.

    Attributes:
        header: The names of the columns.
        rows: The cells of each row.
        note: What a reader must know of it.
        words: The number of columns, the first ones, that are words; the others are figures.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, the name of its file, and what can be seen."""

    file: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Details:
    """A text as it stands, which a reader opens."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A section: what it has of each kind, in this order. ``items`` are the lines of a list."""

    title: str
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    details: tuple[Details, ...] = ()


@dataclass(frozen=True)
class Document:
    """The report: the question, the answer, what limits it, and the sections."""

    title: str
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]

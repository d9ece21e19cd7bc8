"""A font for names in any script, as pictures need it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib

DIGITS_AND_MARKS = "0123456789.?"
"""The characters that are written beside a name."""

PLACEHOLDER = "LastResort"
"""A part of the names of fonts that have a box in place of each letter."""


@lru_cache
def find_font(text: str) -> str | None:
    """Return the file of a font that has all letters of a text, digits and full stop.

    Args:
        text: The text; names that stand in one picture together, joined.

    Returns:
        matplotlib's own font if it has them; otherwise the first of the system's, regular ones before bold and
        italic; None if none has them.
    """
    characters = {ord(character) for character in text + DIGITS_AND_MARKS if not character.isspace()}
    own = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    if _has_characters(str(own), characters):
        return str(own)
    from matplotlib.font_manager import fontManager  # its first import searches the system, which takes seconds

    entries = sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", font.weight != 400, font.fname))
    paths = [entry.fname for entry in entries if PLACEHOLDER not in entry.fname]
    return next((path for path in paths if _has_characters(path, characters)), None)


def _has_characters(path: str, characters: set[int]) -> bool:
    from matplotlib.ft2font import FT2Font

    return characters <= FT2Font(path).get_charmap().keys()

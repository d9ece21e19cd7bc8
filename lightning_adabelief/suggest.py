"""The sentence that an error about an unknown name ends in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 8


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that leads from an unknown name to known ones.

    Args:
        name: The name that is not known.
        known: The names that are.

    Returns:
        ``"Did you mean 'lr' or 'eps'?"`` where up to three names are similar; otherwise the known names,
        the first :data:`MAX_LISTED` of them.

    Example:
        >>> suggest("learning_rat", ["learning_rate", "eps"])
        "Did you mean 'learning_rate'?"
        >>> suggest("x", ["learning_rate", "eps"])
        "There are 'learning_rate' and 'eps'."
    """
    names = list(dict.fromkeys(known))
    similar = difflib.get_close_matches(name, names, n=3)
    if similar:
        return f"Did you mean {join_names(similar, 'or')}?"
    if not names:
        return "There are none."
    if len(names) > MAX_LISTED:
        return f"There are {len(names)}, such as {join_names(names[:3], 'and')}."
    return f"There {'is' if len(names) == 1 else 'are'} {join_names(names, 'and')}."


def join_names(names: Iterable[str], conjunction: str) -> str:
    """Return quoted names as a list in prose: ``"'a', 'b' or 'c'"``."""
    *first, last = (repr(name) for name in names)
    return f"{', '.join(first)} {conjunction} {last}" if first else last

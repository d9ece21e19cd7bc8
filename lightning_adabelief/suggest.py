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
    similar = find_similar(name, names)
    if similar:
        return f"Did you mean {join_names(similar, 'or')}?"
    if not names:
        return "There are none."
    if len(names) > MAX_LISTED:
        return f"There are {len(names)}, such as {join_names(names[:3], 'and')}."
    return f"There {'is' if len(names) == 1 else 'are'} {join_names(names, 'and')}."


def find_similar(name: str, known: Iterable[str], max_count: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are most similar to a name, whether in capitals or not, best first.

    Args:
        name: The name that is not known.
        known: The names that are.
        max_count: Number of names to return at most.
        cutoff: Least similarity, from 0 to 1, as :mod:`difflib` measures it.
    """
    by_lower_case = {other.lower(): other for other in known}
    similar = difflib.get_close_matches(name.lower(), by_lower_case, n=max_count, cutoff=cutoff)
    if not similar and len(name) > 1:  # the beginning of a name, which is not similar if the rest is long
        similar = [other for other in by_lower_case if other.startswith(name.lower())][:max_count]
    return [by_lower_case[lower] for lower in similar]


def join_names(names: Iterable[str], conjunction: str) -> str:
    """Return quoted names as a list in prose: ``"'a', 'b' or 'c'"``."""
    *first, last = (repr(name) for name in names)
    return f"{', '.join(first)} {conjunction} {last}" if first else last

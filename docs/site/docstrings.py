"""An extension of griffe: the reStructuredText in docstrings, turned into the Markdown that the site is made of."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert

FORMULA = re.compile(r"^(?P<indent> *)\.\. math::(?P<line>.*)\n(?P<block>(?:(?P=indent) +.*\n|\s*\n)*)", re.MULTILINE)
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?P<brief>~?)(?P<name>[\w.]+)`")
EXAMPLE = re.compile(r"^(?P<indent> *)Example::\n(?P<block>(?:(?P=indent) +.*\n|\s*\n)*)", re.MULTILINE)


DEFAULT = re.compile(r"\s+\(default:\s+(?:True|False|None|[\d.e-]+|\"\w+\"|\([\d., ]+\))\)(?=\.?$)", re.MULTILINE)
"""A default at the end of an argument's text, which stands in front of it on the page."""

STATISTICS = "The statistics are in [a table][all-statistics]."
"""The mark in the place of the list that BeliefMonitor's docstring has when it is imported."""


class Docstrings(Extension):
    """Turns formulae, roles and examples of every docstring."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Turn an object's docstring."""
        if obj.docstring:
            obj.docstring.value = turn(obj.docstring.value)


def turn(text: str) -> str:
    r"""Turn a docstring into Markdown.

    Args:
        text: The docstring, whose formulae (``.. math::``) become MathML, whose roles (``:class:`X```) become code, and
            whose literal block ``Example::`` becomes a section with a block of Python. Defaults are left out, for
            the page takes them from the signature.
    """
    text = text.replace("{statistics}", STATISTICS)
    text = DEFAULT.sub("", text)
    text = FORMULA.sub(_turn_formula, text + "\n")
    text = EXAMPLE.sub(_turn_example, text)
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)  # the name that griffe reads code under
    return ROLE.sub(
        lambda role: f"`{role['name'].rpartition('.')[2] if role['brief'] else role['name']}`", text
    ).rstrip()


def _turn_formula(formula: re.Match[str]) -> str:
    latex = f"{formula['line']}\n{formula['block']}".replace("{aligned}", "{align*}").strip()
    return f"{formula['indent']}{convert(latex, display='block')}\n\n"


def _turn_example(example: re.Match[str]) -> str:
    indent = example["indent"]
    code = "\n".join(f"{indent}    {line}".rstrip() for line in dedent(example["block"]).strip().splitlines())
    return f"{indent}Example:\n{indent}    ```python\n{code}\n{indent}    ```\n\n"

"""Hooks of mkdocs: the repository's other documents are pages too, and links hold in the repository and on the site.

A page is where its file is in the repository, without ``docs/``. So a link is written as the repository has it,
``../benchmarks/results/digits-cnn.md`` in ``docs/index.md``, and the hook turns it into the site's. A file that has no
page, such as a test, keeps its name and loses its link.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/results/**/*.md",
    "benchmarks/results/**/*.svg",
    "benchmarks/results/**/*.csv",
    "lightning_adabelief/**/README.md",
)
"""Globs of the files outside of ``docs/`` that belong to the site."""

START = {"README.md": "index.md"}
"""The README's place on the site."""

PICTURE = re.compile(r"^!\[[^\]]*\]\((?P<target>[^()\s]+)\)$", re.MULTILINE)
"""A picture that is a paragraph: it links to itself, so that a phone shows it large."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)

BRACKETS = re.compile(r"\](?= ?\[)")
"""The end of a bracket that another follows, as in ``[-h] [--version]``, which Markdown would take for a link."""

log = logging.getLogger("mkdocs.pages")


def on_files(files: Files, config: Any) -> Files:
    """Add the repository's other documents."""
    for glob in DOCUMENTS:
        for path in sorted(ROOT.glob(glob)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the repository's links into the site's, and pictures into links; brackets side by side are none."""
    if page.file.src_uri == "benchmarks/README.md":
        markdown += _list_results()
    markdown = _substitute(PICTURE, lambda picture: f"[{picture[0]}]({picture['target']})", markdown)
    markdown = _substitute(LINK, lambda link: _turn_link(link, page.file.src_uri, files), markdown)
    return _substitute(BRACKETS, lambda brackets: rf"\{brackets[0]}", markdown)


def _list_results() -> str:
    """List the results, which the README of the benchmarks names by pattern."""
    names = sorted(path.name for path in (ROOT / "benchmarks/results").glob("*.md"))
    return "\n".join(["\n## Results\n", *(f"- [{name.removesuffix('.md')}](results/{name})" for name in names), ""])


def _substitute(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], markdown: str) -> str:
    """Substitute what a pattern finds, except in code."""
    code = [match.span() for match in CODE.finditer(markdown)]
    return pattern.sub(
        lambda found: found[0] if any(start < found.start() < end for start, end in code) else replace(found), markdown
    )


def _turn_link(link: re.Match[str], source: str, files: Files) -> str:
    path, hash_sign, anchor = link["target"].partition("#")
    if not path or re.match(r"\w+:", path):
        return link[0]
    in_repository = source if (ROOT / source).exists() else f"docs/{source}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), path))
    if not (ROOT / target).exists():
        log.warning("%s links to %s, which is not in the repository", in_repository, link["target"])
        return link[0]
    on_site = START.get(target, target.removeprefix("docs/"))
    if files.get_file_from_path(on_site) is None:
        return link["text"]
    relative = posixpath.relpath(on_site, posixpath.dirname(source) or ".")
    text = LINK.sub(lambda inner: _turn_link(inner, source, files), link["text"])  # a picture
    return f"{link['image']}[{text}]({relative}{hash_sign}{anchor})"

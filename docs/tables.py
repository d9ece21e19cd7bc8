"""Write the tables of README.md and of the site's pages, each from the file that knows.

    python docs/tables.py           list the documents whose tables are not as they should be
    python docs/tables.py --write   write them

A document has each between ``<!-- kind: names -->`` and ``<!-- end -->``:

    statistics: layer           all statistics of a scope, as a table
    statistic: s_t              one statistic, in a sentence
    table: FILE#HEADING         the first table of a file of the repository, or under one of its headings, as it is
    rows: FILE: NAME; NAME      the first table of a file, with its header and these rows alone
    settings: RECIPE ...        what recipes give AdaBelief, and what they reached
    rates: COMPARISON ...       the learning rates that comparisons chose
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from lightning_adabelief.beliefs.statistic import BY_NAME, markdown_table
from lightning_adabelief.recipes.catalog import recipes

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PART = re.compile(
    r"(<!-- (statistics|statistic|table|rows|settings|rates): ([^>]+) -->\n).*?(\n?<!-- end -->)", re.DOTALL
)


def insert_tables(text: str) -> str:
    """Return a document with each table between its markers."""
    writers = {
        "statistics": markdown_table,
        "statistic": describe_statistic,
        "table": quote_table,
        "rows": quote_rows,
        "settings": list_settings,
        "rates": list_rates,
    }
    return PART.sub(lambda part: f"{part[1]}{writers[part[2]](part[3])}\n<!-- end -->", text)


def describe_statistic(name: str) -> str:
    """Return a statistic's definition and meaning."""
    row = BY_NAME[name]
    return f"**Definition:** {row.definition}.\n\n**What it tells:** {row.meaning}."


def quote_table(place: str) -> str:
    """Return the first table of a file of the repository, or the first under a heading, given by its anchor."""
    path, _, anchor = place.partition("#")
    text = (ROOT / path).read_text(encoding="utf-8")
    if anchor:
        headings = {
            _make_anchor(heading[1]): heading.end() for heading in re.finditer(r"^#+ (.*)$", text, re.MULTILINE)
        }
        text = text[headings[anchor] :]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, f"{place} has no table"
    return table[0].rstrip("\n")


def _make_anchor(heading: str) -> str:
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def quote_rows(words: str) -> str:
    """Return the header and some rows of the first table of a file, in the table's order."""
    path, _, names = words.partition(": ")
    header, line, *rows = quote_table(path).splitlines()
    wanted = [f"| {name} |" for name in names.split("; ")]
    assert all(any(row.startswith(name) for row in rows) for name in wanted), f"{path} lacks one of {names}"
    return "\n".join([header, line, *(row for row in rows if row.startswith(tuple(wanted)))])


def list_settings(names: str) -> str:
    """Return the settings of recipes as a table."""
    rows = []
    for name in names.split():
        recipe = recipes()[name]
        config = yaml.safe_load(recipe.path.read_text(encoding="utf-8"))
        model = config["model"]["init_args"]
        options = model.get("optimizer", model.get("generator_optimizer"))["init_args"]
        clip = config["trainer"].get("gradient_clip_val") or "-"
        measured = recipe.facts["measured"]
        rows.append(
            f"| `{name}` | `{options['lr']:g}` | `{', '.join(f'{beta:g}' for beta in options['betas'])}` | "
            f"`{options['eps']:g}` | {_describe_decay(options)} | {_describe_start(options)} | {clip} | "
            f"{'not trained' if measured == '-' else measured} |"
        )
    header = "| recipe | lr | betas | eps | weight decay | start | clipped at | measured here |"
    return "\n".join([header, "|" + "---|" * 8, *rows])


def _describe_decay(options: dict[str, Any]) -> str:
    if not options["weight_decay"]:
        return "none"
    return f"{options['weight_decay']:g}, {'decoupled' if options['weight_decouple'] else 'in the gradient'}"


def _describe_start(options: dict[str, Any]) -> str:
    warmup = options["warmup"]
    warmed = f"warmup of {warmup:.0%}" if 0 < warmup < 1 else f"warmup of {warmup} steps" if warmup else ""
    return " and ".join(part for part in ("`rectify`" if options["rectify"] else "", warmed) if part) or "neither"


def list_rates(names: str) -> str:
    """Return the learning rates that comparisons chose, and what the optimizers reached with them, as a table."""
    rows = []
    for name in names.split():
        report = (ROOT / "benchmarks/results/compare" / name / "report.md").read_text(encoding="utf-8")
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if "|" in line]
        header = next(cells for cells in lines if "learning rate" in cells and "verdict" in cells)
        of = {cells[0]: dict(zip(header, cells, strict=True)) for cells in reversed(lines) if len(cells) == len(header)}
        adam = "adamw" if "adamw" in of else "adam"
        rows.append(
            f"| [{name}](../benchmarks/results/compare/{name}/report.md) | {of['adabelief']['learning rate']} | "
            f"{of[adam]['learning rate']} ({adam}) | {header[2]} | {of['adabelief'][header[2]]} | "
            f"{of[adam][header[2]]} | {of[adam]['verdict']} |"
        )
    header_line = "| comparison | AdaBelief's lr | Adam's lr | metric | AdaBelief | Adam | is Adam told apart? |"
    return "\n".join([header_line, "|" + "---|" * 7, *rows])


def main() -> None:
    """List or write the documents that change."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        changed = insert_tables(text)
        if changed != text:
            print(path.relative_to(ROOT))
            if "--write" in sys.argv[1:]:
                path.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The files of the report."""

from __future__ import annotations

from pathlib import Path

import jinja2

from lightning_adabelief.comparison.plan import Plan
from lightning_adabelief.comparison.report.csv_files import write_history, write_results
from lightning_adabelief.comparison.report.document import Document, Section
from lightning_adabelief.comparison.report.equal_rates import make_equal_rates
from lightning_adabelief.comparison.report.equality import make_equality
from lightning_adabelief.comparison.report.failures import make_failures
from lightning_adabelief.comparison.report.figures import draw_figures
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.report.sections import (
    make_beliefs,
    make_curves,
    make_other_metrics,
    make_rates,
    make_result,
)
from lightning_adabelief.comparison.report.settings import make_settings
from lightning_adabelief.comparison.report.verdict import write_question, write_verdict, write_warnings
from lightning_adabelief.comparison.stages import Outcomes, Stages
from lightning_adabelief.files import replace_file


def write_report(folder: Path, plan: Plan, stages: Stages, outcomes: Outcomes) -> None:
    """Write the report of a comparison, finished or not, into its folder.

    The files are ``report.html``, which needs no other file and no network; ``report.md`` with the same content, and
    its figures as ``.svg`` files; ``results.csv`` with a row a run, and ``history.csv`` with a row a validation. Those
    that are there are replaced.

    Args:
        folder: The comparison's folder.
        plan: The comparison's plan.
        stages: The trials of each stage so far.
        outcomes: The outcomes of the trials that have ended.
    """
    results = Results(plan, stages, outcomes)
    write_results(results, folder)
    write_history(results, folder)
    pictures = draw_figures(results)
    for name, svg in pictures.items():
        _replace(folder / f"{name}.svg", svg)
    document = make_document(results, pictures, folder)
    for name in ("report.html", "report.md"):
        _replace(folder / name, _render(f"{name}.jinja", document))


def make_document(results: Results, pictures: dict[str, str], folder: Path) -> Document:
    """Make the content of both reports."""
    sections: list[Section | None] = [
        make_result(results, pictures),
        make_other_metrics(results),
        make_curves(results, pictures),
        make_rates(results, pictures),
        make_equal_rates(results),
        make_beliefs(results),
        make_failures(results),
        make_equality(results),
        make_settings(results, folder),
    ]
    return Document(
        write_question(results),
        tuple(write_verdict(results)),
        tuple(write_warnings(results)),
        tuple(section for section in sections if section is not None),
    )


def _render(template: str, document: Document) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _escape_cell
    return environment.get_template(template).render(document=document) + "\n"


def _escape_cell(text: str) -> str:
    """Return a text as Markdown shows it in the cell of a table."""
    return "".join(f"\\{letter}" if letter in "\\|*<`" else letter for letter in text)


def _replace(path: Path, text: str) -> None:
    with replace_file(path) as part:
        part.write_text(text, encoding="utf-8")

"""The report of a comparison: CSV, HTML, Markdown, and a table for the terminal."""

from lightning_adabelief.comparison.report.terminal import make_table
from lightning_adabelief.comparison.report.write import write_report

__all__ = ["make_table", "write_report"]

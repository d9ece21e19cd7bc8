"""Run the notebook, and keep what it shows: python docs/notebook.py.

The notebook is edited in Jupyter or as text; this runs it from nothing, in a folder of its own.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
TIMEOUT = 1800
"""Seconds that a cell has."""

MESSAGE = re.compile(r"^(?:\S+\.py:\d+: )?(AdaBelief[:,] .*\n)", re.MULTILINE)
"""A message of AdaBelief or of its monitor, behind the place in the code that a warning has."""


def read() -> NotebookNode:
    """Return the notebook as it stands in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells, and put what they show in the place of what they showed.

    Args:
        notebook: The notebook; changed.
        folder: The folder that logs are written to.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)


def tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return a cell's outputs with AdaBelief's own messages alone, without the paths of the files that gave them."""
    messages = "".join(output.text for output in outputs if output.get("name") == "stderr")
    ours = "".join(MESSAGE.findall(messages))
    told = [nbformat.v4.new_output("stream", name="stderr", text=ours)] if ours else []
    return told + [output for output in outputs if output.get("name") != "stderr"]


def main() -> None:
    """Run the notebook in a folder that is removed, and write it."""
    notebook = read()
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()

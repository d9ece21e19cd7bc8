"""Messages that a user reads after a bad input: the table of ``tests/bad_inputs/rows.py``, run, with each message.

python benchmarks/bad_inputs.py --write
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from common import make_parser, provenance, publish

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.bad_inputs.files import write_files  # noqa: E402
from tests.bad_inputs.harness import Row, run_row  # noqa: E402
from tests.bad_inputs.rows import GROUPS  # noqa: E402


def main() -> None:
    """Run the table."""
    arguments = make_parser(__doc__).parse_args()
    os.environ["COLUMNS"] = "1000"  # a message on one line, whatever the terminal
    count = sum(map(len, GROUPS.values()))
    sections = "".join(render(title, rows) for title, rows in GROUPS.items())
    document = (
        f"{count} bad inputs, and what the user reads\n\n"
        "Exit status 2 is a command line or config that is wrong, 1 any other failure. An expression of Python has "
        "none: it raises the error. The files that are named are those of `tests/bad_inputs/files.py`.\n"
        f"{sections}\n{provenance('torch', 'pytorch-lightning', 'jsonargparse', 'lightning-adabelief')}"
    )
    publish(document, "bad-inputs.md", arguments.write)


def render(title: str, rows: list[Row]) -> str:
    """Run rows in a folder of their own, and return their table in Markdown."""
    lines = [f"\n## {title}\n", "| input | exit status | message |", "| --- | ---: | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        here = Path.cwd()
        os.chdir(folder)
        try:
            for row in rows:
                outcome = run_row(row)
                is_command = row.input.startswith("adabelief")
                message = outcome.message.replace(f"{os.path.realpath(folder)}/", "")
                message = message.replace("|", "\\|").replace("\n", "<br>").replace("<class", "&lt;class")
                status = str(outcome.status) if is_command else "-"
                lines.append(f"| `{row.input.replace('|', chr(92) + '|')}` | {status} | {message} |")
        finally:
            os.chdir(here)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

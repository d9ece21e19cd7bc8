"""Write the tables of statistics into README.md, from the package's own table.

python docs/statistic_tables.py           print them
python docs/statistic_tables.py --write   write them between the markers in README.md
"""

import re
import sys
from pathlib import Path

from lightning_adabelief.beliefs.statistic import markdown_table

README = Path(__file__).parent.parent / "README.md"


def insert_tables(text: str) -> str:
    """Return a document with each table between its markers: ``<!-- statistics: layer -->`` and ``<!-- end -->``."""
    return re.sub(
        r"(<!-- statistics: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{markdown_table(match[2])}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        README.write_text(insert_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(markdown_table("layer"), markdown_table("optimizer"), sep="\n\n")

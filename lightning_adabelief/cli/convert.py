"""``adabelief convert CONFIG [DEST]``: put AdaBelief in the place of a config's Adam, and show the difference."""

from __future__ import annotations

import argparse
import difflib
import shutil
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("convert", help="put AdaBelief in the place of a config's Adam, AdamW or RAdam")
    parser.add_argument("config", help="a Lightning CLI's config")
    parser.add_argument("dest", nargs="?", metavar="DEST", help="a file or a folder; without, nothing is written")
    parser.add_argument("--in-place", action="store_true", help="change the config itself")
    parser.add_argument(
        "--match-noise",
        action="store_true",
        help="scale lr so that both move alike on pure noise (0.92 at beta1 = 0.9)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the difference, and write the new config where that is asked for; never overwrite another file.

    Raises:
        FileExistsError: If the destination exists.
        FileNotFoundError: If the config, or the folder of the destination, does not exist.
        UsageError: If the config is wrong, or has no Adam.
    """
    from lightning_adabelief.cli.adam_blocks import replace_adams
    from lightning_adabelief.config_file import UsageError, read_config
    from lightning_adabelief.files import replace_file

    path = Path(arguments.config)
    if arguments.in_place and arguments.dest is not None:
        raise UsageError(f"--in-place changes {path} itself, and {arguments.dest} is another file. Give one of them")
    dest = path if arguments.in_place else _find_dest(path, arguments.dest)
    read_config(path)  # says what is wrong with it
    with path.open(encoding="utf-8") as file:
        text = file.read()
        line_ending = file.newlines if isinstance(file.newlines, str) else "\n"
    converted = replace_adams(text, match_noise=arguments.match_noise)
    if converted == text:
        raise UsageError(
            f"{path} has no optimizer to convert: no class_path is torch.optim.Adam, torch.optim.AdamW or "
            "torch.optim.RAdam"
        )
    _print_difference(text, converted, str(path), str(dest or path))
    if dest is not None:
        target = dest.resolve()  # a link stays one
        with replace_file(target) as part:
            part.write_text(converted, encoding="utf-8", newline=line_ending)
            if target.exists():
                shutil.copymode(target, part)
        print(f"Wrote {dest}")


def _find_dest(path: Path, dest: str | None) -> Path | None:
    """Return the file to write, as ``adabelief copy`` finds it; None where nothing is to be written."""
    if dest is None:
        return None
    file = Path(dest) / path.name if Path(dest).is_dir() else Path(dest)
    if file.exists():
        raise FileExistsError(f"{file} exists, and is left as it is. Give another name, or --in-place to change {path}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {file.parent} to write {file.name} into. Make it first")
    return file


def _print_difference(old: str, new: str, old_name: str, new_name: str) -> None:
    """Print a unified diff, in colour on a terminal."""
    from rich.console import Console
    from rich.text import Text

    styles = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
    console = Console(highlight=False)
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm=""):
        style = next((style for start, style in styles.items() if line.startswith(start)), "")
        console.print(Text(line, style), soft_wrap=True)

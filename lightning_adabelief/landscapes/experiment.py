"""The whole comparison: paths, pictures, animation and tables, in a folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_adabelief.files import check_writable, replace_file
from lightning_adabelief.landscapes.functions import LANDSCAPES, Point, find_landscape
from lightning_adabelief.landscapes.importing import InvalidOptionError
from lightning_adabelief.landscapes.optimizers import NAMED, OptimizerMaker, make_contenders
from lightning_adabelief.landscapes.rates import Outcome, compare_on, describe_criterion
from lightning_adabelief.landscapes.table import make_csv, make_markdown, make_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from rich.table import Table

STEPS = 500
TOLERANCE = 0.05
DPI = 120


@dataclass(frozen=True)
class Comparison:
    """The findings of :func:`run`, and the files that it wrote.

    Attributes:
        outcomes: From each function's name to an outcome for each optimizer.
        table: The steps to the tolerance, for the terminal.
        files: The files written.
    """

    outcomes: dict[str, list[Outcome]]
    table: Table
    files: list[Path]


def run(
    out: str | Path,
    *,
    functions: Sequence[str] = tuple(LANDSCAPES),
    optimizers: Sequence[str | OptimizerMaker] = tuple(NAMED),
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
    start: Point | None = None,
    lr: float | None = None,
    betas: tuple[float, float] | None = None,
    seed: int = 0,
    animation: bool = True,
    progress: bool = False,
) -> Comparison:
    """Send optimizers down functions of two weights, and draw and tabulate what happens.

    Writes ``paths.png``, ``losses.png``, ``regions.png``, ``steps.md``, ``steps.csv`` and ``paths.gif``. Files of
    these names are replaced. All but noise on the gradients of ``regions.png`` and the starts nearby is
    deterministic, and these follow ``seed``.

    Args:
        out: The folder for the files; it is made if need be.
        functions: Names in :data:`~lightning_adabelief.landscapes.LANDSCAPES`, or import paths of functions of your
            own: from two float64 tensors of one shape to their losses, of that shape.
        optimizers: ``"sgd"`` (momentum 0.9), ``"adam"`` and ``"adabelief"`` (the paper's: without rectification),
            class paths, optimizer classes, or ``functools.partial`` of classes with options.
        steps: Number of steps from each start.
        tolerance: Loss above the minimum's that counts as reached.
        start: Where to begin, in place of each function's own start; a function of your own needs one.
        lr: One learning rate for all optimizers without one among their options. By default it is searched.
        betas: In place of an optimizer's default betas; SGD's momentum is the first.
        seed: Of the starts nearby, and of the noise.
        animation: Write ``paths.gif``.
        progress: Show a progress bar in the terminal.

    Raises:
        ValueError: If an option is not possible.
        OSError: If the folder can't be written.

    Example::

        from functools import partial
        from torch.optim import SGD
        from lightning_adabelief import landscapes

        nesterov = partial(SGD, momentum=0.9, nesterov=True)
        landscapes.run("out", functions=["beale"], optimizers=["adabelief", "torch.optim.Adagrad", nesterov])
    """
    _check_numbers(steps, tolerance)
    contenders = make_contenders(optimizers, betas, lr)
    descents = [find_landscape(name, start) for name in dict.fromkeys(functions)]
    if not descents:
        raise InvalidOptionError(f"There is no function. Give some of {', '.join(LANDSCAPES)}, or import paths")
    folder = Path(out)
    check_writable(folder)

    # Imported after the checks, for matplotlib takes a second.
    from lightning_adabelief.landscapes.animation import FRAMES, save_animation
    from lightning_adabelief.landscapes.figures import draw_losses, draw_paths
    from lightning_adabelief.landscapes.region_figure import draw_regions
    from lightning_adabelief.landscapes.regions import measure_all_steps

    outcomes = {}
    with _show_progress(progress) as track:
        advance = track("descending", len(descents) * len(contenders) * steps)
        for landscape in descents:
            outcomes[landscape.name] = compare_on(landscape, contenders, steps, tolerance, seed, advance)
        criterion = describe_criterion(contenders, tolerance)
        paths = draw_paths(outcomes, criterion)
        figures = {
            "paths.png": paths.figure,
            "losses.png": draw_losses(outcomes, criterion, tolerance),
            "regions.png": draw_regions(measure_all_steps(contenders, seed), seed, betas),
        }
        advance = track("drawing", len(figures))
        for name, figure in figures.items():
            _save_figure(figure, folder / name)
            advance()
        if animation:
            save_animation(paths, folder / "paths.gif", track("animating", FRAMES))
    texts = {
        "steps.md": make_markdown(outcomes.values(), steps, tolerance, criterion, _describe_run(seed)),
        "steps.csv": make_csv(outcomes.values()),
    }
    for name, text in texts.items():
        with replace_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    names = [*figures, *(["paths.gif"] if animation else []), *texts]
    table = make_table(outcomes.values(), steps, tolerance, criterion)
    return Comparison(outcomes, table, [folder / name for name in names])


def _check_numbers(steps: int, tolerance: float) -> None:
    """Raise an error unless the options that are numbers are possible."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidOptionError(f"The number of steps is {steps!r}. Give a whole number, 1 or more")
    if not (isinstance(tolerance, int | float) and 0 < tolerance < math.inf):
        raise InvalidOptionError(f"The tolerance is {tolerance!r}. Give a number above 0: a loss above the minimum's")


def _describe_run(seed: int) -> str:
    versions = (f"{name} {version(name)}" for name in ("lightning-adabelief", "torch"))
    return f"Seed {seed}; {', '.join(versions)}."


def _save_figure(figure: Figure, file: Path) -> None:
    with replace_file(file) as part:
        figure.savefig(part, format="png", dpi=DPI)


@contextmanager
def _show_progress(is_shown: bool) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Show progress bars in the terminal.

    Yields:
        From a task's description and its total, to a function that advances it by one.
    """
    from rich.progress import Progress

    with Progress(disable=not is_shown, transient=True) as bars:

        def track(description: str, total: int) -> Callable[[], Any]:
            task = bars.add_task(description, total=total)
            return lambda: bars.advance(task)

        yield track

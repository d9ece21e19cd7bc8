"""The paths as an animation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lightning_adabelief.files import replace_file
from lightning_adabelief.landscapes.figures import PathsFigure

FRAMES = 60
FRAME_MILLISECONDS = 80
LAST_FRAME_MILLISECONDS = 2500
DPI = 80
COLORS = 256


def save_animation(paths: PathsFigure, file: Path, on_frame: Callable[[], None] = lambda: None) -> None:
    """Save the paths as a GIF that repeats.

    Each frame shows the same fraction of each landscape's steps, so that a landscape with many goes faster.
    The contours are drawn once, and the paths anew on them, which takes a tenth of the time.

    Args:
        paths: The figure of the paths. It can't be laid out again.
        file: Where to save it.
        on_frame: Called after each of the :data:`FRAMES` frames.

    Raises:
        OSError: If the file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(paths.figure)
    paths.figure.set_dpi(DPI)
    changing = paths.show(0.0)
    canvas.draw()
    paths.figure.set_layout_engine("none")  # panels stay where they are now
    for artist in changing:
        artist.set_animated(True)
    canvas.draw()
    background = canvas.copy_from_bbox(paths.figure.bbox)
    frames = []
    for frame in range(FRAMES):
        canvas.restore_region(background)
        for artist in paths.show(frame / (FRAMES - 1)):
            artist.draw(canvas.get_renderer())
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
        on_frame()
    palette = frames[-1].quantize(COLORS)  # the last frame has every colour
    images = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [FRAME_MILLISECONDS] * (FRAMES - 1) + [LAST_FRAME_MILLISECONDS]
    with replace_file(file) as part:
        images[0].save(part, format="gif", save_all=True, append_images=images[1:], duration=durations, loop=0)

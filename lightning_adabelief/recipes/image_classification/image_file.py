"""Reading of image files of any kind as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""TIFF's tags of the depth of a pixel, and of what its values mean."""

WHITE_IS_ZERO = 0
"""The value of :data:`PHOTOMETRIC` of images whose pixels are darker, the larger they are."""


def read_rgb(path: str | Path, size: tuple[float, float] | None = None) -> Image.Image:
    """Read an image as 8-bit RGB, turned upright as its EXIF data say.

    Pixels of 12 or 16 bits are scaled by their own depth, transparent ones are laid on white, and of an
    animation or a file of several pages the first image is read.

    Args:
        path: The file.
        size: Width and height in pixels that annotations of the image give. Where the image has them as it
            is stored, but not upright, it stays as it is stored; None to turn it in any case.

    Returns:
        The image, of mode ``RGB``.

    Raises:
        ValueError: If the file is no image or damaged, has too many pixels, or has values whose range is not
            known (floats, 32-bit and signed integers); the message names it.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "deep.png")
        >>> Image.new("I;16", (2, 1), 40_000).save(path)
        >>> read_rgb(path).getpixel((0, 0))
        (156, 156, 156)
    """
    try:
        with Image.open(path) as image:
            _check_size(image)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _convert_to_rgb(image if image.size == size != upright.size else upright, _find_range(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, and might fill the memory. Make it smaller, "
            "take it out of the data, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # of damaged files the decoders raise SyntaxError, struct.error, zlib.error and others
        raise ValueError(f"{path} can't be read as an image: {error}. Mend it, or take it out of the data") from error


def find_flaw(path: str | Path) -> str | None:
    """Return why an image can't be read, as far as the beginning of its file tells; None if that is sound.

    The pixels are not decoded, which takes a hundred times as long: a file that was cut off is sound.
    """
    try:
        with Image.open(path) as image:
            _check_size(image)
            _find_range(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except UnknownRangeError:
        return "pixels of floats or 32-bit integers"
    except Exception:  # as in read_rgb
        return "can't be read as images"
    return None


class UnknownRangeError(ValueError):
    """The error of pixels whose black and white are not known."""


def _check_size(image: Image.Image) -> None:
    """Raise Pillow's error of too many pixels at the limit already: it only warns up to twice that."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError


def _find_range(image: Image.Image) -> tuple[int, int] | None:
    """Return the values of black and white of grey pixels of more than 8 bits; None for others.

    Raises:
        UnknownRangeError: If the values have no range of their own.
    """
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})  # which TIFF files have
        white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
        return (white, 0) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (0, white)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 0, 2**16 - 1
    if image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "32-bit or signed integers"
        raise UnknownRangeError(
            f"its pixels are {kind}, whose black and white are not known; save it with 8 or 16 bits"
        )
    return None


def _convert_to_rgb(image: Image.Image, value_range: tuple[int, int] | None) -> Image.Image:
    if value_range is not None:  # Pillow would take every value above 255 for white
        black, white = value_range
        shares = (np.asarray(image, dtype=np.float32) - black) / (white - black)
        image = Image.fromarray((shares * 255).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")

"""Image files of every kind, as pillow writes them, are read as 8-bit RGB or refused by name."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from lightning_adabelief.recipes.image_classification.image_file import read_rgb

GREYS = [0, 257, 40_000, 65_535]
IN_8_BITS = [0, 1, 156, 255]


def read_row(path):
    """The first row of the image that was read: a list of (red, green, blue)."""
    image = read_rgb(path)
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image)[0].tolist()]


def grey(values):
    return [(value, value, value) for value in values]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_greys_are_scaled_by_their_own_depth(name, tmp_path):
    Image.fromarray(np.array([GREYS], dtype=np.uint16)).save(tmp_path / name)
    assert read_row(tmp_path / name) == grey(IN_8_BITS)


def test_16_bit_greys_of_the_other_byte_order_and_of_a_packed_file_are_too(tmp_path):
    pixels = Image.frombytes("I;16B", (4, 1), np.array(GREYS, dtype=">u2").tobytes())
    pixels.save(tmp_path / "big.tif")
    assert read_row(tmp_path / "big.tif") == grey(IN_8_BITS)
    Image.fromarray(np.array([GREYS], dtype=np.uint16)).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert read_row(tmp_path / "lzw.tif") == grey(IN_8_BITS)


def test_a_netpbm_file_is_scaled_by_the_maximum_it_names(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 1000\n" + struct.pack(">3H", 0, 500, 1000))
    assert read_row(tmp_path / "a.pgm") == grey([0, 128, 255])


def write_tiff(path, bits, photometric, data):
    """Write a TIFF of 4 grey pixels of a kind that pillow reads and does not write."""
    tags = [
        (256, 4),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 0),
        (277, 1),
        (278, 1),
        (279, len(data)),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data)


def test_12_bits_are_not_taken_for_16_and_white_may_be_zero(tmp_path):
    write_tiff(tmp_path / "inverted.tif", 16, 0, struct.pack("<4H", *GREYS))
    assert read_row(tmp_path / "inverted.tif") == grey(255 - value for value in IN_8_BITS)
    write_tiff(tmp_path / "12.tif", 12, 1, bytes([0x00, 0x00, 0x00, 0x80, 0x0F, 0xFF]))  # 0, 0, 0x800, 0xFFF
    assert read_row(tmp_path / "12.tif") == grey([0, 0, 128, 255])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused_with_the_files_name(dtype, tmp_path):
    Image.fromarray(np.array([GREYS], dtype=dtype)).save(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match=r"depth\.tif can't be read .* are not known; save it with 8 or 16 bits"):
        read_rgb(tmp_path / "depth.tif")


RED, CLEAR = (200, 30, 40), (255, 255, 255)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparent_pixels_are_laid_on_white_whatever_colour_they_hide(name, tmp_path):
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    assert read_row(tmp_path / name) == [RED, CLEAR]


def test_half_transparent_grey_is_halfway_to_white(tmp_path):
    image = Image.new("LA", (1, 1), (100, 128))
    image.save(tmp_path / "a.png")
    assert read_row(tmp_path / "a.png")[0] == pytest.approx((177, 177, 177), abs=1)


def make_palette_image():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 10, 20, 30])
    image.putpixel((1, 0), 1)
    return image


def test_palettes_are_their_colours_with_and_without_transparency(tmp_path):
    image = make_palette_image()
    image.save(tmp_path / "opaque.png")
    assert read_row(tmp_path / "opaque.png") == [RED, (10, 20, 30)]
    image.save(tmp_path / "clear.png", transparency=1)
    image.save(tmp_path / "table.png", transparency=bytes([255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_row(tmp_path / "clear.png") == read_row(tmp_path / "table.png") == [RED, CLEAR]


def test_grey_1_bit_and_cmyk_are_their_colours(tmp_path):
    Image.new("L", (1, 1), 77).save(tmp_path / "grey.png")
    assert read_row(tmp_path / "grey.png") == grey([77])
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    for name in ("bits.png", "bits.tif", "bits.bmp"):
        bits.save(tmp_path / name)
        assert read_row(tmp_path / name) == grey([0, 255])
    for name in ("ink.jpg", "ink.tif"):
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / name)
        assert read_row(tmp_path / name)[0] == pytest.approx((255, 0, 0), abs=3)


ORIENTATION = 0x0112
TURNS = {  # from EXIF's number to how the upright picture, of a red corner on top at the left, is stored
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def write_turned(path, number, **options):
    image = Image.new("RGB", (48, 32))
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = number
    image.transpose(TURNS[number]).save(path, exif=exif, **options)
    return image


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("number", TURNS)
def test_photos_are_turned_upright(number, name, tmp_path):
    upright = write_turned(tmp_path / name, number)
    read = read_rgb(tmp_path / name)
    assert read.size == upright.size
    assert np.abs(np.asarray(read, dtype=float) - np.asarray(upright)).mean() < 3


def test_a_photo_stays_as_stored_where_its_annotations_are_of_that_size(tmp_path):
    write_turned(tmp_path / "a.jpg", 6)
    assert read_rgb(tmp_path / "a.jpg", size=(48, 32)).size == (48, 32)
    assert read_rgb(tmp_path / "a.jpg", size=(32, 48)).size == (32, 48)


def save_bytes(**options):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, **options)
    return file.getvalue()


JPEG, PNG = save_bytes(format="jpeg"), save_bytes(format="png")


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", JPEG[: len(JPEG) // 2], PNG[: len(PNG) // 2], PNG[:60] + b"????" + PNG[64:], PNG[:20]],
    ids=["empty", "text", "half a JPEG", "half a PNG", "a PNG with a wrong byte", "the head of a PNG"],
)
def test_a_damaged_image_is_named(content, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.jpg can't be read as an image: .+\. Mend it"):
        read_rgb(tmp_path / "photo.jpg")


@pytest.mark.parametrize("limit", [49, 99], ids=["pillow refuses it", "pillow warns of it"])
def test_a_decompression_bomb_is_refused_with_its_name(limit, tmp_path, monkeypatch):
    Image.new("1", (10, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings(record=True), pytest.raises(ValueError, match=rf"bomb\.png has more than {limit} pix"):
        read_rgb(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_rgb(tmp_path / "bomb.png").size == (10, 10)

"""The confusion matrix as a figure."""

import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib.tables._g_l_y_f import Glyph
from matplotlib.font_manager import fontManager

from lightning_adabelief.recipes.fonts import DIGITS_AND_MARKS, find_font
from lightning_adabelief.recipes.image_classification.confusion_matrix import draw_confusion_matrix

NAMES = ["\U00013000\U00013001", "\U00013002"]
"""Hieroglyphs, which matplotlib's own font lacks."""


def write_font(path, text):
    """Write a font that has the characters of a text, all of them blank."""
    characters = {ord(character): f"u{ord(character)}" for character in text}
    glyphs = [".notdef", *characters.values()]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap(characters)
    builder.setupGlyf({name: Glyph() for name in glyphs})
    builder.setupHorizontalMetrics({name: (500, 0) for name in glyphs})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Blank", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def installed(monkeypatch):
    """The installed fonts: matplotlib's own, and those that the test adds."""
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.name == "DejaVu Sans"])
    find_font.cache_clear()
    yield fontManager
    find_font.cache_clear()


def test_a_confusion_matrix_has_the_classes_names_and_shares_in_it():
    figure = draw_confusion_matrix(torch.tensor([[3, 1], [0, 7]]), ["cat", "dog"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    shares = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert shares == {((0, 0), "0.75"), ((1, 0), "0.25"), ((1, 1), "1.00")}, "across: predicted; down: true"
    assert not draw_confusion_matrix(torch.eye(100)).axes[0].texts


def read_names(names):
    figure = draw_confusion_matrix(torch.eye(len(names)), names)
    figure.canvas.draw()  # warns of letters that the font lacks
    labels = [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
    return [label.get_text() for label in labels], {label.get_fontproperties().get_file() for label in labels}


def test_names_in_letters_that_no_font_has_are_numbers(installed):
    assert read_names(NAMES)[0] == ["0", "1", "0", "1"]


def test_names_are_in_an_installed_font_that_has_their_letters(installed, tmp_path):
    for name, text in {"a.ttf": NAMES[0] + DIGITS_AND_MARKS, "b.ttf": "".join(NAMES) + DIGITS_AND_MARKS}.items():
        write_font(tmp_path / name, text)
        installed.addfont(str(tmp_path / name))
    assert read_names(NAMES) == (NAMES * 2, {str(tmp_path / "b.ttf")})
    assert find_font("caf\u00e9").endswith("DejaVuSans.ttf")

"""The confusion matrix as a figure."""

import torch

from lightning_adabelief.recipes.image_classification.confusion_matrix import draw_confusion_matrix


def test_a_confusion_matrix_has_the_classes_names_and_shares_in_it():
    figure = draw_confusion_matrix(torch.tensor([[3, 1], [0, 7]]), ["cat", "dog"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    shares = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert shares == {((0, 0), "0.75"), ((1, 0), "0.25"), ((1, 1), "1.00")}, "across: predicted; down: true"
    assert not draw_confusion_matrix(torch.eye(100)).axes[0].texts

"""What a drawn confusion matrix says: read back from the axes, against numbers by hand."""

import numpy as np
import pytest

from cvplugins.reporting import confusion_size, draw_confusion_matrix

figures = pytest.importorskip("matplotlib.figure")


def drawn(matrix, classes, side=8):
    figure = figures.Figure(figsize=(side, side))
    axes = figure.subplots()
    draw_confusion_matrix(axes, matrix, classes)
    return axes


def test_cells_hold_per_cent_of_their_row():
    axes = drawn(np.array([[3, 1, 0], [0, 0, 0], [1, 0, 999]]), ["cat", "dog", "cow"])
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (0, 1): "25", (2, 2): "100"}  # a tenth of a per cent is colour alone
    shares = axes.images[0].get_array()
    assert np.isnan(np.ma.filled(shares, np.nan)[1]).all()  # a class without samples is no share
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "cow"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize(("count", "named"), [(1, 1), (150, 150), (1000, 200)])
def test_many_classes_are_named_as_far_as_names_can_be_read(count, named):
    axes = drawn(np.eye(count, dtype=np.int64), [f"class {index}" for index in range(count)], confusion_size(count))
    assert len(axes.get_yticklabels()) == named
    assert axes.get_yticklabels()[0].get_size() >= 5


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"of 2 classes has shape \(2, 2\), not \(3, 3\)"):
        drawn(np.eye(3), ["a", "b"])

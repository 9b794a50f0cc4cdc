"""Overlays of label maps. Oracle: the colours of single pixels by hand, and a loop for the legend's IoU."""

import numpy as np
import pytest

from cvplugins.reporting.label_overlay import LINE, _entries, class_colours, draw_label_overlay

pytest.importorskip("PIL")

CLASSES = ["wall", "sky ", "tree"]
PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def test_each_panel_shows_its_colours_over_the_image():
    image = np.full((4, 320, 3), 100, np.uint8)
    prediction, label = np.zeros((4, 320), int), np.full((4, 320), 255)
    label[:, 160:] = 2
    drawn = draw_label_overlay(image, prediction, CLASSES, PALETTE, label=label, opacity=0.5)
    row = drawn[LINE]
    assert row[0].tolist() == [100, 100, 100]
    assert row[326].tolist() == [150, 50, 50]
    assert row[652].tolist() == [100, 100, 100]  # 255 is no class
    assert row[652 + 200].tolist() == [50, 50, 150]
    assert row[322].tolist() == [255, 255, 255]


def test_small_images_are_magnified_and_large_ones_are_not():
    for width, panel in ((100, 400), (320, 320), (500, 500)):
        image = np.zeros((10, width, 3), np.uint8)
        drawn = draw_label_overlay(image, np.zeros((10, width), int), CLASSES, PALETTE)
        assert drawn.shape[1] == 2 * panel + 6


def test_the_legend_lists_the_classes_by_area_with_their_iou():
    generator = np.random.default_rng(0)
    prediction, label = generator.integers(0, 3, (2, 20, 20))
    label[:5] = 255
    entries = dict(_entries(prediction, label, CLASSES))
    for index, name in enumerate(CLASSES):
        counted = label != 255
        found, true = (prediction == index) & counted, label == index
        assert entries[index] == f"{name.strip()} {100 * (found & true).sum() / (found | true).sum():.0f} %"
    areas = [(prediction == index).sum() + (label == index).sum() for index, _ in _entries(prediction, label, CLASSES)]
    assert areas == sorted(areas, reverse=True)
    assert _entries(prediction * 0, None, CLASSES) == [(0, "wall")]
    assert _entries(np.full((2, 2), 1), np.full((2, 2), 255), CLASSES) == [(1, "sky")]


def test_a_long_legend_takes_more_lines():
    many = [f"a long name of class {index}" for index in range(60)]
    palette = [(index, index, index) for index in range(60)]
    image, labels = np.zeros((60, 60, 3), np.uint8), np.arange(60)[:, None].repeat(60, 1)
    few = draw_label_overlay(image, labels * 0, many, palette)
    assert len(draw_label_overlay(image, labels, many, palette)) > len(few) + 5 * LINE


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"image \(4, 4\) and label map \(4, 5\) differ"):
        draw_label_overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), int), CLASSES, PALETTE)


def test_colours_are_those_of_voc_and_differ():
    """Oracle: colours of VOC's classes as its development kit lists them; 255 differ, and none is the background's."""
    colours = class_colours(255)
    assert [colours[index] for index in (0, 7, 14, 19)] == [(128, 0, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128)]
    assert len({*colours, (0, 0, 0)}) == 256

"""Reporting: figures and tables drawn from typed results."""

from .classification import (
    classification_table,
    draw_classification_figure,
    draw_confusion_figure,
    draw_rates_figure,
)
from .confusion_matrix import confusion_size, draw_confusion_matrix
from .detection import detection_table, draw_detection_figure
from .segmentation import draw_segmentation_figure, segmentation_table
from .tracking import draw_tracking_figure, tracking_table

__all__ = [
    "classification_table",
    "confusion_size",
    "detection_table",
    "draw_classification_figure",
    "draw_confusion_figure",
    "draw_confusion_matrix",
    "draw_detection_figure",
    "draw_rates_figure",
    "draw_segmentation_figure",
    "draw_tracking_figure",
    "segmentation_table",
    "tracking_table",
]

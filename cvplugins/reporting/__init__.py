"""Reporting: figures and tables drawn from typed results."""

from .confusion_matrix import draw_confusion_matrix
from .detection import detection_table, draw_detection_figure
from .segmentation import draw_segmentation_figure, segmentation_table

__all__ = [
    "detection_table",
    "draw_confusion_matrix",
    "draw_detection_figure",
    "draw_segmentation_figure",
    "segmentation_table",
]

"""Reporting: figures and tables drawn from typed results."""

from .classification import (
    classification_table,
    draw_classification_figure,
    draw_confusion_figure,
    draw_rates_figure,
)
from .confusion_matrix import confusion_size, draw_confusion_matrix
from .detection import (
    detection_table,
    draw_detection_confusion_figure,
    draw_detection_errors_figure,
    draw_detection_figure,
)
from .generalization import draw_generalization_figure
from .gradient_health import GradientLines, draw_gradient_figure, read_gradient_records
from .image_quality import draw_image_quality_figure, generation_table, image_quality_table
from .label_overlay import class_colours, draw_label_overlay
from .results import REPORTS, Report, result_table, write_results
from .run_summary import summary_lines, write_metrics
from .segmentation import draw_segmentation_figure, segmentation_table
from .tracking import draw_tracking_figure, tracking_table

__all__ = [
    "REPORTS",
    "GradientLines",
    "Report",
    "class_colours",
    "classification_table",
    "confusion_size",
    "detection_table",
    "draw_classification_figure",
    "draw_confusion_figure",
    "draw_confusion_matrix",
    "draw_detection_confusion_figure",
    "draw_detection_errors_figure",
    "draw_detection_figure",
    "draw_generalization_figure",
    "draw_gradient_figure",
    "draw_image_quality_figure",
    "draw_label_overlay",
    "draw_rates_figure",
    "draw_segmentation_figure",
    "draw_tracking_figure",
    "generation_table",
    "image_quality_table",
    "read_gradient_records",
    "result_table",
    "segmentation_table",
    "summary_lines",
    "tracking_table",
    "write_metrics",
    "write_results",
]

"""Evaluate saved predictions against annotations, without a model and without a framework."""

from .label_images import evaluate_label_images
from .saved_detections import SavedDetections, evaluate_detections, read_detections
from .truths import Truths, read_truths

__all__ = [
    "SavedDetections",
    "Truths",
    "evaluate_detections",
    "evaluate_label_images",
    "read_detections",
    "read_truths",
]

"""Evaluate saved predictions against annotations, without a model and without a framework."""

from typing import Any

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


def __getattr__(name: str) -> Any:
    # It brings torch, for which a mistake in a file need not wait.
    if name == "evaluate_label_images":
        from .label_images import evaluate_label_images

        return evaluate_label_images
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

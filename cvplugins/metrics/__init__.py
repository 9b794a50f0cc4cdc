"""Metrics: state that merges over parts of a data set, and a typed result."""

from .detection import DetectionMetric, DetectionResult, ImageDetections, PrecisionRecallCurve
from .segmentation import SegmentationMetric, SegmentationResult

__all__ = [
    "DetectionMetric",
    "DetectionResult",
    "ImageDetections",
    "PrecisionRecallCurve",
    "SegmentationMetric",
    "SegmentationResult",
]

"""Metrics: state that merges over parts of a data set, and a typed result."""

from .calibration import Calibration, calibrate
from .class_counts import ClassRate
from .classification import ClassificationMetric, ClassificationResult, ClassificationState
from .detection import DetectionMetric, DetectionResult, ImageDetections, PrecisionRecallCurve
from .ranking import RankedCounts, RocCurve, rank_counts, roc_auc
from .segmentation import SegmentationMetric, SegmentationResult
from .tracked_frame import TrackedFrame
from .tracking import Timeline, TrackingMetric, TrackingResult

__all__ = [
    "Calibration",
    "ClassRate",
    "ClassificationMetric",
    "ClassificationResult",
    "ClassificationState",
    "DetectionMetric",
    "DetectionResult",
    "ImageDetections",
    "PrecisionRecallCurve",
    "RankedCounts",
    "RocCurve",
    "SegmentationMetric",
    "SegmentationResult",
    "Timeline",
    "TrackedFrame",
    "TrackingMetric",
    "TrackingResult",
    "calibrate",
    "rank_counts",
    "roc_auc",
]

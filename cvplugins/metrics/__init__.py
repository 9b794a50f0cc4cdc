"""Metrics: state that merges over parts of a data set, and a typed result."""

from .calibration import Calibration, calibrate
from .class_counts import ClassRate
from .classification import ClassificationMetric, ClassificationResult, ClassificationState
from .detection import DetectionMetric, DetectionResult, ImageDetections, PrecisionRecallCurve
from .image_quality import ImageQuality, ImageQualityMetric, ImageQualityResult
from .ranking import RankedCounts, RocCurve, rank_counts, roc_auc
from .segmentation import SegmentationMetric, SegmentationResult

__all__ = [
    "Calibration",
    "ClassRate",
    "ClassificationMetric",
    "ClassificationResult",
    "ClassificationState",
    "DetectionMetric",
    "DetectionResult",
    "ImageDetections",
    "ImageQuality",
    "ImageQualityMetric",
    "ImageQualityResult",
    "PrecisionRecallCurve",
    "RankedCounts",
    "RocCurve",
    "SegmentationMetric",
    "SegmentationResult",
    "calibrate",
    "rank_counts",
    "roc_auc",
]

"""Metrics: state that merges over parts of a data set, and a typed result."""

from .calibration import Calibration, calibrate
from .class_counts import ClassRate
from .classification import ClassificationMetric, ClassificationResult, ClassificationState
from .detection import DetectionMetric, DetectionResult, ImageDetections, PrecisionRecallCurve
from .frechet import FeatureStatistics, FrechetDistance, frechet_distance
from .generation import GenerationMetric, GenerationResult, ImageFeatures, inception_score
from .image_quality import ImageQuality, ImageQualityMetric, ImageQualityResult
from .inception import InceptionFeatures
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
    "FeatureStatistics",
    "FrechetDistance",
    "GenerationMetric",
    "GenerationResult",
    "ImageDetections",
    "ImageFeatures",
    "ImageQuality",
    "ImageQualityMetric",
    "ImageQualityResult",
    "InceptionFeatures",
    "PrecisionRecallCurve",
    "RankedCounts",
    "RocCurve",
    "SegmentationMetric",
    "SegmentationResult",
    "calibrate",
    "frechet_distance",
    "inception_score",
    "rank_counts",
    "roc_auc",
]

"""Metrics: state that merges over parts of a data set, and a typed result."""

from .average_precision import PrecisionRecallCurve
from .calibration import Calibration, calibrate
from .class_counts import ClassRate
from .classification import ClassificationMetric, ClassificationResult, ClassificationState
from .detection import DetectionMetric, DetectionResult
from .detection_errors import ERRORS, DetectionErrors
from .detection_rule import DETECTION_RULES, DetectionRule, detection_rule
from .frechet import FeatureStatistics, FrechetDistance, frechet_distance
from .generation import GenerationMetric, GenerationResult, ImageFeatures, inception_score
from .image_quality import ImageQuality, ImageQualityMetric, ImageQualityResult
from .inception import InceptionFeatures
from .instance_segmentation import ImageMasks, InstanceSegmentationMetric, encode_masks
from .instances import ImageDetections
from .operating_points import OperatingPoints
from .ranking import RankedCounts, RocCurve, rank_counts
from .rule_result import RuleResult
from .segmentation import SegmentationMetric, SegmentationResult
from .tracked_frame import TrackedFrame
from .tracking import Timeline, TrackingMetric, TrackingResult

__all__ = [
    "DETECTION_RULES",
    "ERRORS",
    "Calibration",
    "ClassRate",
    "ClassificationMetric",
    "ClassificationResult",
    "ClassificationState",
    "DetectionErrors",
    "DetectionMetric",
    "DetectionResult",
    "DetectionRule",
    "FeatureStatistics",
    "FrechetDistance",
    "GenerationMetric",
    "GenerationResult",
    "ImageDetections",
    "ImageFeatures",
    "ImageMasks",
    "ImageQuality",
    "ImageQualityMetric",
    "ImageQualityResult",
    "InceptionFeatures",
    "InstanceSegmentationMetric",
    "OperatingPoints",
    "PrecisionRecallCurve",
    "RankedCounts",
    "RocCurve",
    "RuleResult",
    "SegmentationMetric",
    "SegmentationResult",
    "Timeline",
    "TrackedFrame",
    "TrackingMetric",
    "TrackingResult",
    "calibrate",
    "detection_rule",
    "encode_masks",
    "frechet_distance",
    "inception_score",
    "rank_counts",
]

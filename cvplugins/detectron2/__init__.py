"""Detectron2: the core's plugins as evaluators, for its trainer or for a loop of one's own."""

from .evaluators import (
    CvpluginsDetectionEvaluator,
    CvpluginsInstanceSegmentationEvaluator,
    CvpluginsSegmentationEvaluator,
)

__all__ = [
    "CvpluginsDetectionEvaluator",
    "CvpluginsInstanceSegmentationEvaluator",
    "CvpluginsSegmentationEvaluator",
]

"""Know a data set: objects, pixels, boxes, and what follows from the counts."""

from .anchors import AnchorFit, cluster_sizes, fit_anchors
from .class_balance import (
    effective_number_weights,
    image_repeat_factors,
    inverse_frequency_weights,
    median_frequency_weights,
    suggested_threshold,
)
from .content import SplitContent, merge_contents, read_content
from .summary import DataStatistics, summarize_content

__all__ = [
    "AnchorFit",
    "DataStatistics",
    "SplitContent",
    "cluster_sizes",
    "effective_number_weights",
    "fit_anchors",
    "image_repeat_factors",
    "inverse_frequency_weights",
    "median_frequency_weights",
    "merge_contents",
    "read_content",
    "suggested_threshold",
    "summarize_content",
]

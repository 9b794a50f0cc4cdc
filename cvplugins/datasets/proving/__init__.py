"""Whether the evaluation sees what the model is trained on: places along the way compared, and what differs named."""

from .label_maps import label_map_differences, stray_labels, unseen_labels
from .numbers import numbers_below_perfect
from .objects import Difference, Objects, object_differences
from .proof import Finding, Link, Proof, check_chain, check_counterparts

__all__ = [
    "Difference",
    "Finding",
    "Link",
    "Objects",
    "Proof",
    "check_chain",
    "check_counterparts",
    "label_map_differences",
    "numbers_below_perfect",
    "object_differences",
    "stray_labels",
    "unseen_labels",
]

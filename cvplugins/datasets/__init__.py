"""Data layouts: readers and checks that need neither a framework nor an image library."""

from .coco import CocoAnnotations, CocoObjects, CocoResults, read_coco_annotations, read_coco_results
from .mot_challenge import MOTTracks, mot_challenge_frames, read_mot_tracks
from .voc import (
    VOC_CLASSES,
    DataError,
    VOCAnnotation,
    VOCObject,
    VOCReport,
    VOCSplit,
    check_voc,
    read_annotation,
    read_split,
)
from .voc_results import VocDetections, read_voc_results

__all__ = [
    "VOC_CLASSES",
    "CocoAnnotations",
    "CocoObjects",
    "CocoResults",
    "DataError",
    "MOTTracks",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSplit",
    "VocDetections",
    "check_voc",
    "mot_challenge_frames",
    "read_annotation",
    "read_coco_annotations",
    "read_coco_results",
    "read_mot_tracks",
    "read_split",
    "read_voc_results",
]

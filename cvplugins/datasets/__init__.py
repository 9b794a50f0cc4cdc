"""Data layouts: readers and checks without a framework; label maps alone need an image library, Pillow."""

from .ade20k import ADE20K_CLASSES
from .coco import CocoAnnotations, CocoObjects, CocoResults, read_coco_annotations, read_coco_results
from .label_images import LabelReport, check_label_images, read_label_image
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
    "ADE20K_CLASSES",
    "VOC_CLASSES",
    "CocoAnnotations",
    "CocoObjects",
    "CocoResults",
    "DataError",
    "LabelReport",
    "MOTTracks",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSplit",
    "VocDetections",
    "check_label_images",
    "check_voc",
    "mot_challenge_frames",
    "read_annotation",
    "read_coco_annotations",
    "read_coco_results",
    "read_label_image",
    "read_mot_tracks",
    "read_split",
    "read_voc_results",
]

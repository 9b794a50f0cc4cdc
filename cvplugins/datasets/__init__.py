"""Data layouts: readers and checks without a framework; label maps alone need an image library, Pillow."""

from .ade20k import ADE20K_CLASSES, ade20k_pairs
from .coco import CocoAnnotations, CocoObjects, CocoResults, read_coco_annotations, read_coco_results
from .coco_check import check_coco_file
from .label_images import LabelReport, check_label_images, read_label_image, without_zero_label
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
    "ade20k_pairs",
    "check_coco_file",
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
    "without_zero_label",
]

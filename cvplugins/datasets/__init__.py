"""Data layouts: readers and checks without a framework; label maps alone need an image library, Pillow."""

from cvplugins.errors import DataError

from .ade20k import ADE20K_CLASSES, ade20k_pairs
from .boxes import box_problem
from .class_names import (
    ClassCounts,
    check_class_names,
    check_objects,
    check_same_classes,
    check_spelling,
    missing_classes,
)
from .coco import CocoAnnotations, CocoObjects, CocoResults, read_coco_annotations, read_coco_results
from .coco_check import check_coco_file
from .image_lists import ImageList, image_names, read_image_list
from .label_images import LabelReport, check_label_images, read_label_image, without_zero_label
from .mot_challenge import MOTTracks, mot_challenge_frames, read_mot_tracks
from .voc import (
    VOC_CLASSES,
    VOCAnnotation,
    VOCObject,
    VOCReport,
    VOCSource,
    VOCSplit,
    check_voc,
    check_voc_folders,
    check_voc_source,
    read_annotation,
    read_split,
)
from .voc_boxes import voc_edges, voc_pixels, voc_truth
from .voc_results import VocDetections, read_voc_results

__all__ = [
    "ADE20K_CLASSES",
    "VOC_CLASSES",
    "ClassCounts",
    "CocoAnnotations",
    "CocoObjects",
    "CocoResults",
    "DataError",
    "ImageList",
    "LabelReport",
    "MOTTracks",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSource",
    "VOCSplit",
    "VocDetections",
    "ade20k_pairs",
    "box_problem",
    "check_class_names",
    "check_coco_file",
    "check_label_images",
    "check_objects",
    "check_same_classes",
    "check_spelling",
    "check_voc",
    "check_voc_folders",
    "check_voc_source",
    "image_names",
    "missing_classes",
    "mot_challenge_frames",
    "read_annotation",
    "read_coco_annotations",
    "read_coco_results",
    "read_image_list",
    "read_label_image",
    "read_mot_tracks",
    "read_split",
    "read_voc_results",
    "voc_edges",
    "voc_pixels",
    "voc_truth",
    "without_zero_label",
]

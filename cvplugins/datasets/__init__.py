"""Data layouts: readers and checks that need neither a framework nor an image library."""

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

__all__ = [
    "VOC_CLASSES",
    "DataError",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSplit",
    "check_voc",
    "read_annotation",
    "read_split",
]

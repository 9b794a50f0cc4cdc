"""Data layouts: readers and checks that need neither a framework nor an image library."""

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

__all__ = [
    "VOC_CLASSES",
    "DataError",
    "MOTTracks",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSplit",
    "check_voc",
    "mot_challenge_frames",
    "read_annotation",
    "read_mot_tracks",
    "read_split",
]

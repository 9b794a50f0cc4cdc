"""How Detectron2 reads images, and a check of those of a dataset before any work.

``detectron2.data.detection_utils.read_image`` opens with Pillow and applies the orientation that Pillow finds, to
images and to label maps alike; ``check_image_size`` then refuses an image of another size than its record says.
DatasetMapper converts label maps to grey, which changes the values of one with a palette; Mask2Former's mappers keep
the values.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from numpy.typing import NDArray

from cvplugins.datasets.image_files import read_header
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.label_images import SceneReader, read_label_image
from cvplugins.datasets.listed_images import check_listed_images
from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.errors import DataError

__all__ = ["check_records", "image_reader", "loaded_size", "scene_reader"]

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # twice Pillow's Image.MAX_IMAGE_PIXELS, from where on it refuses


def image_reader(cfg: CfgNode, name: str = "", full: bool = False, *, resizes: bool = True) -> ImageReader:
    """Return how Detectron2 reads the images of a dataset.

    Args:
        cfg: A config.
        name: The dataset, whose place in the config says which sizes it is resized to.
        full: Whether a check shall decode every image.
        resizes: Whether the images are resized at all.
    """
    least_in_training = min(cfg.INPUT.MIN_SIZE_TRAIN, default=0)
    limits = [
        (2 * size, f"resizing to {key} {size}")
        for key, size, least, names in (
            ("INPUT.MAX_SIZE_TRAIN", cfg.INPUT.MAX_SIZE_TRAIN, least_in_training, cfg.DATASETS.TRAIN),
            ("INPUT.MAX_SIZE_TEST", cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST, cfg.DATASETS.TEST),
        )
        if resizes and name in names and least
    ]
    max_ratio, resized_by = min(limits, default=(float("inf"), ""))
    return ImageReader(
        name="Detectron2",
        turns="pillow",
        uses_pillow=True,
        max_pixels=MAX_PIXELS,
        max_ratio=max_ratio,
        resized_by=resized_by,
        decode=lambda path: read_image(path, cfg.INPUT.FORMAT),
        full=full,
    )


def loaded_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image as Detectron2 will return it, by its header."""
    return ImageReader(turns="pillow").size(read_header(path))


def scene_reader(cfg: CfgNode, name: str, full: bool = False) -> SceneReader:
    """Return how the mapper of a config reads images and label maps.

    Args:
        cfg: A config.
        name: The dataset.
        full: Whether a check shall decode every image.
    """
    keeps_values = is_mask2former(cfg)
    return SceneReader(
        image=image_reader(cfg, name, full),
        label=image_reader(cfg, name, full, resizes=False),
        read_labels=read_label_image if keeps_values else _read_grey,
        values="Pillow's" if keeps_values else "Pillow's, equal to grey,",
        largest=65_535 if keeps_values else 255,
    )


def check_records(cfg: CfgNode, name: str, full: bool = False) -> None:
    """Check that the images of a dataset are whole, and of the size that their records say.

    Args:
        cfg: A config.
        name: A dataset of the catalog.
        full: Whether to decode every image.

    Raises:
        DataError: An image is missing, broken or of another size; the first one in detail, and how many more.
    """
    records = [each for each in DatasetCatalog.get(name) if "://" not in str(each.get("file_name", "://"))]
    reader = image_reader(cfg, name, full)
    for warning in check_listed_images(records, "file_name", reader, "its record", f"of {name} cannot be used"):
        logger.warning("%s: %s", name, warning)


def _read_grey(path: Path) -> NDArray[Any]:
    stored, grey = read_label_image(path), read_image(str(path), "L")[:, :, 0]
    if not np.array_equal(stored, grey):
        raise DataError(
            f"{path}: Detectron2's mapper converts label maps to grey, which changes the labels of this one "
            f"({stored.max()} becomes {grey[stored == stored.max()][0]}): save it as 8-bit grey without a palette"
        )
    return stored

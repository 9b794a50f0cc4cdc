"""Batches of a validation or test whose images have several sizes: what each framework's preprocessor makes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from PIL import Image, UnidentifiedImageError

from cvplugins.errors import UserError

__all__ = ["check_batch_sizes"]

logger = logging.getLogger(__name__)

ORIENTATION = 0x0112  # the tag of EXIF
TURNED = (5, 6, 7, 8)
MOST = 20  # sizes that are tried; the pipeline makes several of them equal, or all


def check_batch_sizes(runner: Runner, *loops: str) -> None:
    """Look for images of several sizes in what is evaluated more than one image at a time.

    mmseg's preprocessor refuses them with an AssertionError in the middle of a test; mmdet's pads them, so that scores
    depend on the batch size.

    Args:
        runner: A run with the loops.
        loops: ``"val_loop"``, ``"test_loop"``.

    Raises:
        UserError: mmseg's model would get such a batch; the message names the key to set.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    preprocessor = type(getattr(model, "data_preprocessor", None)).__name__
    for name in loops:
        loop = getattr(runner, name)
        batch_size = getattr(getattr(loop, "dataloader", None), "batch_size", None)
        if not batch_size or batch_size < 2 or preprocessor not in ("SegDataPreProcessor", "DetDataPreprocessor"):
            continue
        different = _different(loop.dataloader.dataset)
        if different is None:
            continue
        key = f"{name.removesuffix('_loop')}_dataloader.batch_size"
        found = " and ".join("x".join(map(str, size)) for size in different)
        if preprocessor == "SegDataPreProcessor":
            raise UserError(
                f"{key} is {batch_size}, but its pipeline gives images of several sizes ({found}, height and width), "
                f"which mmseg does not put into one batch; set {key}=1"
            )
        logger.warning(
            "%s is %d, and its images have several sizes (%s): mmdet pads them to the largest of their batch, so that "
            "scores depend on the batch size (by some hundredths of AP50); set it to 1 for numbers that do not",
            *(key, batch_size, found),
        )


def _different(dataset: Any) -> tuple[Any, Any] | None:
    """Return two sizes that the pipeline of a dataset gives, None if it gives one; read by the dataset itself."""
    first = None
    for index in _of_each_size(dataset):
        size = tuple(dataset[index]["inputs"].shape[-2:])
        if first is not None and size != first:
            return first, size
        first = size
    return None


def _of_each_size(dataset: Any) -> Iterator[int]:
    """Yield the index of one image of each size on disk, by the headers."""
    seen: set[Any] = set()
    for index in range(len(dataset) if hasattr(dataset, "get_data_info") else 0):
        size = _size(dataset.get_data_info(index).get("img_path"))
        if size is not None and size not in seen:
            seen.add(size)
            yield index
        if len(seen) == MOST:
            return


def _size(path: Any) -> Any:
    try:
        with Image.open(path) as image:
            return image.size, image.getexif().get(ORIENTATION) in TURNED
    except (OSError, AttributeError, UnidentifiedImageError, Image.DecompressionBombError):
        return None  # at an address, or what the check of the data is for

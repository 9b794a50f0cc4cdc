"""How OpenMMLab's transforms read images and label maps: as mmcv's ``imfrombytes`` does, found by trying it.

OpenCV and Pillow apply EXIF's orientation with the flags ``color`` and ``grayscale``, and do not with ``unchanged`` and
the flags that end in ``_ignore_orientation``; of PNG and WebP too. Pillow also takes XMP's orientation. turbojpeg and
tifffile never turn. Label maps are read ``unchanged``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmcv.image import io as mmcv_io
from numpy.typing import NDArray

from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.label_images import SceneReader
from cvplugins.datasets.regular_files import read_bytes
from cvplugins.errors import DataError, first_line
from cvplugins.openmmlab.run.config import type_name, walk_dicts

__all__ = ["image_reader", "scene_reader"]

# OpenCV's CV_IO_MAX_IMAGE_PIXELS and CV_IO_MAX_IMAGE_WIDTH; Pillow's limit is twice Image.MAX_IMAGE_PIXELS.
LIMITS = {"cv2": (1 << 30, 1 << 20), "pillow": (178_956_970, 1 << 31), "turbojpeg": (1 << 32, 65_535)}
NAMES = {"cv2": "OpenCV", "pillow": "Pillow", "turbojpeg": "turbojpeg"}
TURNS = {"cv2": "exif", "pillow": "pillow", "turbojpeg": "none"}
STORED = {"unchanged", "color_ignore_orientation", "grayscale_ignore_orientation"}


def image_reader(pipeline: Sequence[Mapping[str, Any]] | None, full: bool = False) -> ImageReader | None:
    """Return how a dataset's pipeline reads images; None if not with ``LoadImageFromFile``.

    Args:
        pipeline: Of a config's dataset.
        full: Whether a check shall decode every image.
    """
    for step in pipeline or ():
        if type_name(step) != "LoadImageFromFile":
            continue
        flag = step.get("color_type", "color")
        backend = step.get("imdecode_backend", "cv2") or mmcv_io.imread_backend
        if backend not in NAMES:
            return None
        keys = [(2 * edge, key) for edge, key in _long_edges(pipeline)]
        max_ratio, resized_by = min(keys, default=(float("inf"), ""))
        return ImageReader(
            name=NAMES[backend],
            turns="none" if flag in STORED else TURNS[backend],
            uses_pillow=backend == "pillow",
            max_pixels=LIMITS[backend][0],
            max_side=LIMITS[backend][1],
            max_ratio=max_ratio,
            resized_by=resized_by,
            ignore_hint="set color_type='color_ignore_orientation' in LoadImageFromFile",
            decode=partial(_decode, flag=flag, backend=backend),
            full=full,
        )
    return None


def scene_reader(pipeline: Sequence[Mapping[str, Any]] | None, full: bool = False) -> SceneReader:
    """Return how a pipeline of mmseg reads images and label maps.

    Args:
        pipeline: Of a config's dataset.
        full: Whether a check shall decode every image.
    """
    backend = "pillow"
    for step in pipeline or ():
        if type_name(step) == "LoadAnnotations":
            backend = step.get("imdecode_backend", "pillow") or mmcv_io.imread_backend
    decode = partial(_decode, flag="unchanged", backend=backend)
    max_pixels, max_side = LIMITS.get(backend, LIMITS["pillow"])
    label = ImageReader(
        name=NAMES.get(backend, backend),
        turns="none",
        uses_pillow=backend == "pillow",
        max_pixels=max_pixels,
        max_side=max_side,
        decode=decode,
        full=full,
    )
    # mmseg keeps the lowest eight bits of a label.
    return SceneReader(
        image=image_reader(pipeline, full) or ImageReader(),
        label=label,
        read_labels=partial(_read_labels, backend=backend),
        values=f"mmcv's unchanged {backend}",
    )


def _decode(path: str, flag: str, backend: str) -> NDArray[Any]:
    image = mmcv.imfrombytes(read_bytes(path, "image"), flag=flag, backend=backend)
    if image is None:
        raise DataError("it returns nothing")
    return image


def _read_labels(path: Path, backend: str) -> NDArray[np.int64]:
    try:
        labels = _decode(str(path), "unchanged", backend)
    except DataError:
        raise
    except Exception as error:  # damaged bytes make decoders raise anything
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error
    return (labels[..., 0] if labels.shape[2:] == (1,) else labels).astype(np.int64)


def _long_edges(pipeline: Sequence[Mapping[str, Any]] | None) -> Iterator[tuple[float, str]]:
    """Yield the long edges that a pipeline resizes to with the ratio kept, and by which transform's key.

    A side is rounded to the next pixel, so one that is less than half a pixel vanishes.
    """
    for step in walk_dicts(list(pipeline or ())):
        name = type_name(step) if "type" in step else ""
        if "ResizeShortestEdge" in (name, step.get("resize_type")):
            if isinstance(step.get("max_size"), (int, float)) and step["max_size"]:
                yield step["max_size"], f"{name} to max_size {step['max_size']}"
            continue
        if name not in ("Resize", "RandomResize", "RandomChoiceResize") or not step.get("keep_ratio"):
            continue
        given = step.get("scales" if name == "RandomChoiceResize" else "scale")
        # What is no size is for the transform to refuse.
        scales = [scale for scale in (given if isinstance(given, list) else []) if _is_scale(scale)]
        scales += [given] if given is not None and _is_scale(given) else []
        least = min(step.get("ratio_range") or (1,)) if name == "RandomResize" else 1
        yield from ((max(scale) * least, f"{name} to {tuple(scale)}") for scale in scales)


def _is_scale(value: Any) -> bool:
    numbers = value if isinstance(value, (tuple, list)) else ()
    return len(numbers) == 2 and all(isinstance(each, (int, float)) for each in numbers)

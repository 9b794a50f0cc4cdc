"""Ground truth in the pixels of the network's input.

The pipelines of OpenMMLab's validation load annotations after ``Resize``, because metrics compare in the original
image; a loss compares in the resized and padded input.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fit_to_input", "is_empty", "resizes_annotations"]


def resizes_annotations(dataset: Any) -> bool:
    """Return whether a dataset's pipeline loads annotations before it resizes, so that they are resized too."""
    while not hasattr(dataset, "pipeline"):
        inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
        dataset = inner[0]
        if dataset is None:
            return False
    names = [type(transform).__name__ for transform in getattr(dataset.pipeline, "transforms", [])]
    loads = [index for index, name in enumerate(names) if "Annotations" in name]
    resizes = [index for index, name in enumerate(names) if "Resize" in name]
    return bool(loads and resizes) and loads[0] < resizes[-1]


def is_empty(sample: BaseDataElement, ignore_index: int = 255) -> bool:
    """Return whether a data sample of mmdet has no objects, or one of mmseg no labelled pixel."""
    if "gt_instances" in sample:
        return len(sample.gt_instances) == 0
    return bool((sample.gt_sem_seg.data == ignore_index).all())


def fit_to_input(
    sample: BaseDataElement, shape: tuple[int, int], *, resized: bool = False, ignore_index: int = 255
) -> BaseDataElement:
    """Return a copy of a data sample whose ground truth lies in the pixels of the network's input.

    Boxes are multiplied by ``scale_factor``; masks and label maps are resized with nearest neighbours, as training's
    ``Resize`` does, and padded at the right and the bottom.

    Args:
        sample: Data sample of mmdet or mmseg with ``ori_shape``, ``img_shape`` and ``scale_factor``.
        shape: Height and width of the padded input.
        resized: Whether the ground truth has been resized with the image already.
        ignore_index: Label of padded pixels.

    Raises:
        ValueError: The image was moved by more than resizing and padding at the right and the bottom.
    """
    meta = sample.metainfo
    if meta.get("border") is not None:
        raise ValueError(
            f"{meta.get('img_path', 'image')}: the pipeline pads at the top and the left (border={meta['border']}); "
            "a validation loss needs a val_dataloader whose pipeline resizes and pads at the right and the bottom only"
        )
    # Width before height; absent where nothing resizes.
    width, height = (1.0, 1.0) if resized else meta.get("scale_factor", (1.0, 1.0))[:2]
    scale = (float(width), float(height))
    fitted = sample.new()
    fitted.set_metainfo({"batch_input_shape": shape, "pad_shape": shape})
    for name, value in sample.items():
        if isinstance(value, InstanceData) and name in ("gt_instances", "ignored_instances"):
            fitted.set_data({name: _fit_instances(value, scale, shape)})
        elif isinstance(value, PixelData) and name.startswith("gt_"):
            maps = {key: _fit_map(each, scale, shape, ignore_index) for key, each in value.items()}
            fitted.set_data({name: PixelData(**maps)})
    return fitted


def _fit_instances(instances: InstanceData, scale: tuple[float, float], shape: tuple[int, int]) -> InstanceData:
    fitted = instances.new()
    if "bboxes" in instances:
        boxes = instances.bboxes
        if isinstance(boxes, Tensor):
            fitted.bboxes = boxes * boxes.new_tensor(scale).repeat(boxes.shape[-1] // 2)
        else:
            fitted.bboxes = boxes.clone()
            fitted.bboxes.rescale_(scale)
    if "masks" in instances:
        masks = instances.masks
        content = _scaled((masks.height, masks.width), scale, shape)
        if content != (masks.height, masks.width):
            masks = masks.resize(content)
        fitted.masks = masks.pad(shape)
    return fitted


def _fit_map(values: Tensor, scale: tuple[float, float], shape: tuple[int, int], ignore_index: int) -> Tensor:
    content = _scaled(values.shape[-2:], scale, shape)
    if content != tuple(values.shape[-2:]):
        values = F.interpolate(values[None].double(), size=content, mode="nearest")[0].to(values.dtype)
    padding = (0, shape[1] - content[1], 0, shape[0] - content[0])
    return F.pad(values, padding, value=ignore_index)


def _scaled(size: torch.Size | tuple[int, int], scale: tuple[float, float], limit: tuple[int, int]) -> tuple[int, int]:
    return min(round(size[0] * scale[1]), limit[0]), min(round(size[1] * scale[0]), limit[1])

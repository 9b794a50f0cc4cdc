"""What a batch of a framework says of its images: their names and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["image_names", "image_tensors"]


def image_names(batch: Any) -> tuple[str, ...]:
    """Return the path or number of each image of a batch as the data loader gave it; empty if it does not say.

    >>> image_names([{"file_name": "a.jpg"}, {"image_id": 7}, {}])
    ('a.jpg', '7', 'unknown')
    """
    samples = batch.get("data_samples") if isinstance(batch, Mapping) else batch
    if not isinstance(samples, (list, tuple)):
        return ()
    names = []
    for sample in samples:
        meta = sample if isinstance(sample, Mapping) else getattr(sample, "metainfo", {})
        known = (str(meta[key]) for key in ("img_path", "file_name", "img_id", "image_id") if key in meta)
        names.append(next(known, "unknown"))
    return tuple(names)


def image_tensors(batch: Any) -> dict[str, Tensor]:
    """Return the input tensors by the name of their image.

    Args:
        batch: OpenMMLab's dict with ``inputs``, or Detectron2's list of dicts with ``image``.
    """
    inputs: Any = batch
    if isinstance(batch, Mapping):
        inputs = batch.get("inputs")
    elif isinstance(batch, (list, tuple)):
        inputs = [sample.get("image") if isinstance(sample, Mapping) else None for sample in batch]
    if isinstance(inputs, Tensor):
        return {"inputs": inputs}
    if not isinstance(inputs, (list, tuple)):
        return {}
    names = image_names(batch)
    return {
        names[index] if index < len(names) and names[index] != "unknown" else f"inputs[{index}]": value
        for index, value in enumerate(inputs)
        if isinstance(value, Tensor)
    }

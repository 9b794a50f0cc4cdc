"""What a batch of Detectron2 says of its images: their names and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["image_names", "image_tensors"]


def image_names(batch: Any) -> tuple[str, ...]:
    """Return the path or number of each image of a batch, which is a list of dicts.

    >>> image_names([{"file_name": "a.jpg"}, {"image_id": 7}, {}])
    ('a.jpg', '7', 'unknown')
    """
    if not isinstance(batch, (list, tuple)):
        return ()
    known = (sample if isinstance(sample, Mapping) else {} for sample in batch)
    return tuple(str(sample.get("file_name", sample.get("image_id", "unknown"))) for sample in known)


def image_tensors(batch: Any) -> dict[str, Tensor]:
    """Return the tensors under ``image`` by the name of their image."""
    found = {}
    for index, name in enumerate(image_names(batch)):
        image = batch[index].get("image") if isinstance(batch[index], Mapping) else None
        if isinstance(image, Tensor):
            found[name if name != "unknown" else f"inputs[{index}]"] = image
    return found

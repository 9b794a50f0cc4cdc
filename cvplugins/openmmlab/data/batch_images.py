"""What a batch of OpenMMLab says of its images: their names and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["image_names", "image_tensors"]


def image_names(batch: Any) -> tuple[str, ...]:
    """Return the path or number of each image as its ``metainfo`` has it; empty if the batch has no ``data_samples``.

    >>> from types import SimpleNamespace
    >>> image_names({"data_samples": [SimpleNamespace(metainfo={"img_path": "a.jpg"}), SimpleNamespace(metainfo={})]})
    ('a.jpg', 'unknown')
    """
    samples = batch.get("data_samples") if isinstance(batch, Mapping) else None
    if not isinstance(samples, (list, tuple)):
        return ()
    known = (getattr(sample, "metainfo", {}) for sample in samples)
    return tuple(str(meta.get("img_path", meta.get("img_id", "unknown"))) for meta in known)


def image_tensors(batch: Any) -> dict[str, Tensor]:
    """Return the ``inputs`` by the name of their image; as ``inputs`` if they are one tensor."""
    inputs = batch.get("inputs") if isinstance(batch, Mapping) else batch
    if isinstance(inputs, Tensor):
        return {"inputs": inputs}
    if not isinstance(inputs, (list, tuple)):
        return {}
    names = dict(enumerate(image_names(batch)))
    return {
        name if (name := names.get(index, "unknown")) != "unknown" else f"inputs[{index}]": value
        for index, value in enumerate(inputs)
        if isinstance(value, Tensor)
    }

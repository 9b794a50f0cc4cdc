"""Where a pipeline leaves out boxes that training cannot use, and how to make it do so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cvplugins.openmmlab.run.config import type_name, walk_dicts

from .dataset_nodes import DatasetNode

__all__ = ["add_box_filter", "filters_boxes"]

FILTER = {"type": "mmdet.FilterAnnotations", "min_gt_bbox_wh": (0.0, 0.0), "keep_empty": False}


def filters_boxes(dataset: DatasetNode) -> bool:
    """Return whether a pipeline has ``FilterAnnotations``, which leaves out boxes without width or height."""
    steps = [step for step in walk_dicts(dataset.pipelines) if "type" in step]
    return any(type_name(step) == "FilterAnnotations" and step.get("by_box", True) for step in steps)


def add_box_filter(dataset: DatasetNode) -> None:
    """Let a pipeline leave out boxes without width or height, after all steps that move or cut them."""
    for steps in _lists(dataset.pipelines):
        places = [number for number, step in enumerate(steps) if _packs(step)]
        for number in reversed(places):
            steps.insert(number, dict(FILTER))


def _packs(step: Any) -> bool:
    return isinstance(step, dict) and "type" in step and type_name(step).startswith("Pack")


def _lists(node: Any) -> Iterator[list[Any]]:
    if isinstance(node, list):
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    for child in children:
        yield from _lists(child)

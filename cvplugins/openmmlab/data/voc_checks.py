"""What mmdet's XMLDataset makes of a list of images with PASCAL VOC's annotations."""

from __future__ import annotations

from collections.abc import Callable

from cvplugins.datasets import VOCObject, VOCSource, box_problem, voc_pixels

from .dataset_nodes import DatasetNode

__all__ = ["box_of", "box_problem_of", "voc_source"]


def voc_source(dataset: DatasetNode) -> VOCSource:
    """Return where an XMLDataset reads: its list, images and annotations."""
    node = dataset.node
    folder = (node.get("data_prefix") or {}).get("sub_data_root")
    images, annotations = node.get("img_subdir", "JPEGImages"), node.get("ann_subdir", "Annotations")
    return VOCSource(dataset.path(node["ann_file"]), dataset.path(folder, images), dataset.path(folder, annotations))


def box_of(found: VOCObject) -> tuple[int, int, int, int]:
    """Return the box of an object as XMLDataset reads it: cut to whole numbers, then moved by the pixel 1."""
    return voc_pixels(int(found.xmin), int(found.ymin), int(found.xmax), int(found.ymax))


def box_problem_of(dataset: DatasetNode) -> Callable[[VOCObject, int | None, int | None], str | None]:
    """Return what says why an object of a dataset would break training, or None for one that would not.

    Objects that XMLDataset marks as ignored reach no loss: difficult ones, and those below ``bbox_min_size``.
    """
    min_size = (dataset.node.get("filter_cfg") or {}).get("bbox_min_size")

    def _problem(found: VOCObject, width: int | None, height: int | None) -> str | None:
        left, top, right, bottom = box = box_of(found)
        is_small = min_size is not None and (right - left < min_size or bottom - top < min_size)
        if found.difficult or is_small:
            return None
        problem = box_problem(box, width, height)
        corners = f"({found.xmin:g}, {found.ymin:g}, {found.xmax:g}, {found.ymax:g})"
        return problem and f"{corners} in the file, as mmdet reads it: {problem}"

    return _problem

"""The same files as training reads them and as evaluation reads them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from cvplugins.errors import UserError, first_line
from cvplugins.openmmlab.run.config import type_name

from .dataset_nodes import DatasetNode, class_of, dataset_nodes

__all__ = ["build_reader", "image_name", "nearest", "read_as", "spread"]

FILES = ("ann_file", "data_prefix", "data_root", "img_suffix", "seg_map_suffix", "img_subdir", "ann_subdir")


def nearest(config: Config, loader: str, dataset: DatasetNode) -> DatasetNode:
    """Return the dataset of another loader that is of the same class; its first one if none is.

    Raises:
        UserError: The loader has no dataset.
    """
    found = list(dataset_nodes(config, loader))
    if not found:
        raise UserError(f"the config has no {loader}.dataset")
    kind = class_of(dataset.node, config.get("default_scope"))
    kinds = [class_of(each.node, config.get("default_scope")) for each in found]
    alike = (each for each, other in zip(found, kinds, strict=True) if other is kind)
    related = (each for each, other in zip(found, kinds, strict=True) if _is_same_format(other, kind))
    return next(alike, None) or next(related, found[0])


def read_as(config: Config, files: DatasetNode, rules: DatasetNode) -> dict[str, Any]:
    """Return a dataset of the config with the files of one and everything else of another."""
    node = copy.deepcopy(dict(rules.node))
    kinds = [class_of(each.node, config.get("default_scope")) for each in (files, rules)]
    if not _is_same_format(*kinds):
        node["type"] = files.node["type"]
        if "classes" not in (node.get("metainfo") or {}):
            names = (getattr(kinds[1], "METAINFO", None) or {}).get("classes")
            if names is not None:
                node["metainfo"] = {**(node.get("metainfo") or {}), "classes": names}
    for key in FILES:
        node.pop(key, None)
        if key in files.node:
            node[key] = copy.deepcopy(files.node[key])
    return node


def _is_same_format(first: type | None, second: type | None) -> bool:
    """Return whether a class reads what another one reads: one's own dataset often inherits from the framework's."""
    if first is None or second is None:
        return first is second
    return issubclass(first, second) or issubclass(second, first)


def build_reader(node: dict[str, Any], key: str) -> Any:
    """Build a dataset without a pipeline.

    Raises:
        UserError: It cannot be read.
    """
    # mmengine cannot serialize a list that a filter has emptied.
    plain = {**copy.deepcopy(node), "pipeline": [], "serialize_data": False}
    plain.pop("indices", None)
    try:
        dataset = DATASETS.build(plain)
        dataset.full_init()
    except UserError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{key} ({type_name(node)}) cannot be read: {text}") from error
    return dataset


def image_name(info: dict[str, Any]) -> str:
    """Return by what an image is the same for two readers."""
    return str(info.get("img_path") or info.get("img_id"))


def spread(count: int, most: int) -> Sequence[int]:
    """Return at most so many indices, evenly over all."""
    if count <= most:
        return range(count)
    return [number * count // most for number in range(most)]

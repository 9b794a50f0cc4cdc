"""Images that mmseg would leave out, for a suffix in capitals, or not find, for what editors leave in lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from cvplugins.datasets import image_names
from cvplugins.errors import DataError
from cvplugins.openmmlab.run.defaults import argument_default

from .dataset_nodes import DatasetNode, class_of, dataset_nodes, is_made_from
from .written_lists import WrittenLists

__all__ = ["check_image_suffixes", "clean_lists"]


def check_image_suffixes(config: Config, loaders: tuple[str, ...]) -> None:
    """Raise ``DataError`` if a folder holds ``.JPG`` beside ``.jpg``: mmseg reads one of them and says nothing.

    Args:
        config: A loaded config.
        loaders: Keys such as ``"train_dataloader"``.
    """
    for loader in loaders:
        for dataset in dataset_nodes(config, loader):
            kind = class_of(dataset.node, config.get("default_scope"))
            # With a list of images every file of it has to be there, and is looked for.
            if is_made_from(kind, "BaseSegDataset") and dataset.is_local and not dataset.node.get("ann_file"):
                _check(dataset, kind)


def clean_lists(config: Config, loaders: tuple[str, ...], written: WrittenLists) -> dict[str, str]:
    """Replace lists with a byte order mark or empty lines, which mmseg would take for images.

    Args:
        config: A loaded config, whose datasets then name the new lists.
        loaders: Keys such as ``"train_dataloader"``.
        written: Where new lists go.

    Returns:
        The new lists, by the keys of their datasets.
    """
    replaced = {}
    for loader in loaders:
        for dataset in dataset_nodes(config, loader):
            kind = class_of(dataset.node, config.get("default_scope"))
            path = dataset.path(dataset.node.get("ann_file"))
            if not is_made_from(kind, "BaseSegDataset", ("load_data_list",)) or not dataset.is_local:
                continue
            folder, suffix = _images(dataset, kind)
            if dataset.node.get("ann_file") and path.is_file() and isinstance(suffix, str):
                names, is_plain = image_names(path, folder, suffix)
                if not is_plain:
                    replaced[dataset.key] = dataset.node["ann_file"] = written.write(names, path.stem)
    return replaced


def _images(dataset: DatasetNode, kind: type | None) -> tuple[Path, Any]:
    """Return the folder of the images and how their names end."""
    folder = dataset.path((dataset.node.get("data_prefix") or {}).get("img_path"))
    return folder, dataset.node.get("img_suffix") or argument_default(kind, "img_suffix")


def _check(dataset: DatasetNode, kind: type | None) -> None:
    folder, suffix = _images(dataset, kind)
    if not isinstance(suffix, str) or not folder.is_dir():
        return
    names = sorted(path.name for path in folder.rglob("*") if path.name.lower().endswith(suffix.lower()))
    others = [name for name in names if not name.endswith(suffix)]
    if others:
        raise DataError(
            f"{folder}: {len(others)} of {len(names)} images, such as {others[0]}, would be left out, because "
            f"img_suffix of {dataset} is {suffix!r}; rename them to end in {suffix}"
        )

"""Find images of a folder of label maps that mmseg would leave out for the case of their suffix."""

from __future__ import annotations

from mmengine.config import Config

from cvplugins.errors import DataError

from .dataset_nodes import DatasetNode, class_of, dataset_nodes, is_made_from
from .defaults import argument_default

__all__ = ["check_image_suffixes"]


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


def _check(dataset: DatasetNode, kind: type | None) -> None:
    folder = dataset.path((dataset.node.get("data_prefix") or {}).get("img_path"))
    suffix = dataset.node.get("img_suffix") or argument_default(kind, "img_suffix")
    if not isinstance(suffix, str) or not folder.is_dir():
        return
    names = sorted(path.name for path in folder.rglob("*") if path.name.lower().endswith(suffix.lower()))
    others = [name for name in names if not name.endswith(suffix)]
    if others:
        raise DataError(
            f"{folder}: {len(others)} of {len(names)} images, such as {others[0]}, would be left out, because "
            f"img_suffix of {dataset} is {suffix!r}; rename them to end in {suffix}"
        )

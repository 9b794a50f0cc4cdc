"""Class names of all datasets of a config: whether they are names, mean the same everywhere, and fit the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from cvplugins.datasets import check_same_classes
from cvplugins.errors import DataError

from .dataset_nodes import DatasetNode, class_of, classes_of, dataset_nodes, is_made_from
from .head_checks import check_heads

__all__ = ["check_classes", "check_heads_of", "check_trained_classes"]

logger = logging.getLogger(__name__)

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def check_classes(config: Config, loaders: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Check class names before any file is read.

    Args:
        config: A loaded config.
        loaders: Keys of the loaders that will be used.

    Returns:
        The class names of the datasets that have some, by their keys.

    Raises:
        UserError: Names are no list of strings, two datasets number their classes differently, or the model has another
            number of classes.
    """
    found = [(dataset, classes) for loader in loaders for dataset, classes in _named(config, loader)]
    for dataset, classes in found[1:]:
        check_same_classes(found[0][1], str(found[0][0]), classes, str(dataset))
    for dataset, classes in found:
        check_heads_of(config, dataset, classes)
    if found:
        _check_other_loaders(config, loaders, *found[0])
    return {dataset.key: classes for dataset, classes in found}


def check_heads_of(config: Config, dataset: DatasetNode, classes: tuple[str, ...]) -> None:
    """Compare the heads of a model with one dataset; those for label maps have a check of their own."""
    scope = config.get("default_scope")
    kind = class_of(dataset.node, scope)
    if is_made_from(kind, "BaseSegDataset") or is_made_from(kind, "BaseCDDataset"):
        return
    metainfo = {**getattr(kind, "METAINFO", {}), **(dataset.node.get("metainfo") or {})}
    things = tuple(metainfo.get("thing_classes") or classes)
    check_heads(config.get("model"), scope, things, len(metainfo.get("stuff_classes") or ()), str(dataset))


def _check_other_loaders(
    config: Config, loaders: tuple[str, ...], dataset: DatasetNode, classes: tuple[str, ...]
) -> None:
    """Compare with loaders that are not used: those of a training have to agree, of a later test it is only warned."""
    for loader in LOADERS:
        if loader in loaders:
            continue
        for other, others in _named(config, loader):
            try:
                check_same_classes(others, str(other), classes, str(dataset))
            except DataError as error:
                if loader == "train_dataloader":
                    raise
                logger.warning("%s", error)


def _named(config: Config, loader: str) -> Iterator[tuple[DatasetNode, tuple[str, ...]]]:
    """Yield the datasets of a loader that have class names, and these."""
    for dataset in dataset_nodes(config, loader):
        kind = class_of(dataset.node, config.get("default_scope"))
        if dataset.is_test and is_made_from(kind, "BaseVideoDataset"):
            continue  # trackers are evaluated by files that name more classes than a detector learns
        classes = classes_of(dataset, kind)
        if classes is not None:
            yield dataset, classes


def check_trained_classes(config: Config, loaders: tuple[str, ...], checkpoint: Mapping[str, Any], path: str) -> None:
    """Compare class names with those that a checkpoint of mmengine's was trained on.

    Args:
        config: A loaded config.
        loaders: Keys of the loaders that will be used.
        checkpoint: What the file holds. One that names no classes is passed over.
        path: Of the file.

    Raises:
        DataError: A class has another label in the checkpoint. Other names for all labels are only warned of.
    """
    meta = checkpoint.get("meta")
    trained_on = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    learnt = (trained_on.get("classes") or trained_on.get("CLASSES")) if isinstance(trained_on, Mapping) else None
    if not isinstance(learnt, (list, tuple)) or not all(isinstance(name, str) for name in learnt):
        return
    for loader in loaders:
        for dataset, classes in _named(config, loader):
            if len(classes) != len(learnt):
                continue  # of which the weights tell more
            try:
                check_same_classes(learnt, f"checkpoint {path}", classes, str(dataset))
            except DataError as error:
                if set(learnt) & set(classes):
                    raise
                logger.warning("%s", error)

"""The datasets in a config: where they stand, behind which wrappers, and which classes they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from cvplugins.datasets import check_class_names
from cvplugins.openmmlab.run.config import type_name

__all__ = ["DatasetNode", "class_of", "classes_of", "dataset_nodes", "given_classes", "is_made_from"]


@dataclass(frozen=True)
class DatasetNode:
    """A dataset of a config that is no wrapper.

    Attributes:
        key: Its dotted key, such as ``train_dataloader.dataset.datasets.0``.
        node: The dict itself.
        pipelines: Its own pipeline and those of the wrappers around it.
    """

    key: str
    node: dict[str, Any]
    pipelines: tuple[Any, ...]

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this machine, where they can be checked."""
        return not self.node.get("backend_args") and "://" not in str(self.node.get("data_root"))

    @property
    def is_test(self) -> bool:
        """Whether the dataset is read for evaluation."""
        return bool(self.node.get("test_mode"))

    def path(self, *parts: str | None) -> Path:
        """Return a path below ``data_root``, as mmengine joins it."""
        return Path(self.node.get("data_root") or "", *(part or "" for part in parts))

    def __str__(self) -> str:
        return f"{self.key} ({type_name(self.node)})"


def dataset_nodes(config: Config, loader: str) -> Iterator[DatasetNode]:
    """Yield the datasets that a loader reads, through wrappers such as ``RepeatDataset`` and ``ConcatDataset``.

    Args:
        config: A loaded config.
        loader: A key such as ``"train_dataloader"``.
    """
    dataset = (config.get(loader) or {}).get("dataset")
    yield from _inside(dataset, f"{loader}.dataset", ())


def _inside(node: Any, key: str, pipelines: tuple[Any, ...]) -> Iterator[DatasetNode]:
    if isinstance(node, (list, tuple)):
        for number, each in enumerate(node):
            yield from _inside(each, f"{key}.{number}", pipelines)
        return
    if not isinstance(node, dict) or "type" not in node:
        return
    if node.get("pipeline"):
        pipelines = (node["pipeline"], *pipelines)
    inner = [name for name in ("dataset", "datasets") if isinstance(node.get(name), (Mapping, list, tuple))]
    for name in inner:
        yield from _inside(node[name], f"{key}.{name}", pipelines)
    if not inner:
        yield DatasetNode(key, node, pipelines)


def class_of(node: Mapping[str, Any], scope: str | None) -> type | None:
    """Return a dataset's class; None if no registry knows it, which the Runner says with the closest names.

    Args:
        node: The dataset in the config.
        scope: The config's ``default_scope``.
    """
    if not isinstance(node["type"], str):
        return node["type"]
    if scope:
        init_default_scope(scope)
    with DATASETS.switch_scope_and_registry(None) as registry:  # get alone looks in no scope
        return registry.get(node["type"])


def classes_of(dataset: DatasetNode, kind: type | None) -> tuple[str, ...] | None:
    """Return a dataset's class names, as mmengine makes them from its class and ``metainfo``; None if it has none.

    ``metainfo.classes`` may be a file of one name a line; its empty lines and blanks, which mmengine would keep, are
    passed over.

    Args:
        dataset: The dataset.
        kind: Its class.

    Raises:
        DataError: ``metainfo.classes`` is one string, or no list of names.
    """
    given = given_classes(dataset)
    if given is None:
        known = (getattr(kind, "METAINFO", None) or {}).get("classes")
        return None if known is None else tuple(known)
    if isinstance(given, str) and Path(given).is_file():
        lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        given = [line.strip() for line in lines if line.strip()]
    return check_class_names(given, f"{dataset.key}.metainfo.classes")


def given_classes(dataset: DatasetNode) -> Any:
    """Return ``metainfo.classes`` as it stands in the config."""
    metainfo = dataset.node.get("metainfo")
    return metainfo.get("classes") if isinstance(metainfo, Mapping) else None


def is_made_from(kind: type | None, base: str, methods: tuple[str, ...] = ()) -> bool:
    """Return whether a class derives from one of this name and does not replace the named methods of it.

    Args:
        kind: The class of a dataset.
        base: Name of a class of OpenMMLab.
        methods: Names of methods.
    """
    for each in getattr(kind, "__mro__", ()):
        if each.__name__ == base:
            return all(getattr(kind, name) is getattr(each, name) for name in methods)
    return False

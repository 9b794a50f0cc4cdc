"""What has to be changed in a config so that its datasets are read as they are meant."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmengine.config import Config

from .box_filter import add_box_filter, filters_boxes
from .dataset_nodes import DatasetNode, dataset_nodes

__all__ = ["Changes"]


@dataclass
class Changes:
    """What datasets read in place of what the config says, by their keys.

    Attributes:
        classes: Names from a file of them, without what mmengine would misread.
        lists: Lists of images.
        filtered: Datasets whose pipeline leaves out boxes that training cannot use.
    """

    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    filtered: list[str] = field(default_factory=list)

    def apply(self, config: Config, loaders: tuple[str, ...]) -> None:
        """Change the datasets that the named loaders of a config read."""
        for loader in loaders:
            for dataset in dataset_nodes(config, loader):
                self._change(dataset)

    def _change(self, dataset: DatasetNode) -> None:
        if dataset.key in self.classes:
            dataset.node["metainfo"]["classes"] = self.classes[dataset.key]
        if dataset.key in self.lists:
            dataset.node["ann_file"] = self.lists[dataset.key]
        if dataset.key in self.filtered and not filters_boxes(dataset):
            add_box_filter(dataset)

"""Check the images of datasets in COCO's form as mmdet will read them, before any work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from cvplugins.datasets.findings import Step, stop_at_first
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.listed_images import check_listed_images
from cvplugins.errors import UserError, first_line
from cvplugins.openmmlab.run.config import type_name, walk_dicts

from .image_readers import image_reader

__all__ = ["check_coco_images"]

logger = logging.getLogger(__name__)


def check_coco_images(config: Config, loaders: tuple[str, ...], full: bool = False, step: Step = stop_at_first) -> None:
    """Check the images that datasets with a .json annotation file read: whole, and of the size that the file says.

    The dataset itself is built, so that what it leaves out, such as images without objects, is not looked at.

    Args:
        config: A loaded config.
        loaders: Keys such as ``"train_dataloader"``.
        full: Whether to decode every image.
        step: What becomes of an error; see :func:`cvplugins.openmmlab.data.checks.examine_data`.

    Raises:
        UserError: An image is missing, broken or of another size; the first one in detail, and how many more.
    """
    checked = []
    for dataset in _datasets(config, loaders):
        reader = image_reader(dataset.get("pipeline"), full)
        source = {key: value for key, value in dataset.items() if key != "pipeline"}
        if reader is None or (source, reader) in checked:
            continue
        checked.append((source, reader))
        if config.get("default_scope"):
            init_default_scope(config.default_scope)
        with step("images"):
            with DATASETS.switch_scope_and_registry(None) as registry:  # get alone looks in no scope
                if isinstance(source["type"], str) and registry.get(source["type"]) is None:
                    continue  # the Runner says so, with the closest names
                built = _build(registry, source)
            _check(built, type_name(dataset), reader)


def _datasets(config: Config, loaders: tuple[str, ...]) -> Iterator[ConfigDict]:
    for loader in loaders:
        for node in walk_dicts(config.get(loader)):
            is_local = not node.get("backend_args") and "://" not in str(node.get("data_root"))
            if "type" in node and str(node.get("ann_file", "")).endswith(".json") and is_local:
                yield node


def _build(registry: Any, source: dict[str, Any]) -> Any:
    try:
        return registry.build(ConfigDict(source, pipeline=[], serialize_data=False))
    except Exception as error:  # what is wrong with an annotation file can raise anything
        name = type_name(source)
        raise UserError(
            f"{name}: {source['ann_file']} cannot be read: {type(error).__name__}: {first_line(error)}"
        ) from error


def _check(dataset: Any, name: str, reader: ImageReader) -> None:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    infos = [info for info in infos if "img_path" in info]
    for warning in check_listed_images(infos, "img_path", reader, f"its entry in {dataset.ann_file}"):
        logger.warning("%s: %s: %s", name, dataset.ann_file, warning)

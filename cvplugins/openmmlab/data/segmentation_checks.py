"""Check folders of label maps, and that labels, classes and model agree, before any work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from cvplugins.datasets import ade20k, check_label_images
from cvplugins.datasets.findings import Step, stop_at_first
from cvplugins.datasets.label_images import READABLE, LabelReport, SceneReader, check_classes_occur
from cvplugins.datasets.regular_files import stat_regular
from cvplugins.errors import DataError, UserError
from cvplugins.openmmlab.run.config import type_name, walk_dicts

from .image_readers import scene_reader

__all__ = ["check_segmentation_data"]

logger = logging.getLogger(__name__)

ZERO_IS_LARGE = 0.25  # share of the pixels from which on leaving out label 0 deserves a warning


def check_segmentation_data(
    config: Config, loaders: tuple[str, ...], full: bool = False, step: Step = stop_at_first
) -> None:
    """Check the label maps of the named loaders' datasets of mmseg; nothing where there are none.

    Args:
        config: A loaded config.
        loaders: Keys such as ``"train_dataloader"``.
        full: Whether to decode every image.
        step: What becomes of an error; see :func:`cvplugins.openmmlab.data.checks.examine_data`.

    Raises:
        UserError: A folder is missing, a label map is missing, broken or of another size than its image, a label is out
            of range, or ``reduce_zero_label`` or a number of classes contradicts another.
    """
    checked = []
    for dataset in _datasets(config, loaders):
        source = {key: value for key, value in dataset.items() if key != "pipeline"}
        reader = scene_reader(dataset.get("pipeline"), full)
        if (source, reader.image, reader.label) in checked:
            continue
        checked.append((source, reader.image, reader.label))
        with step("label maps"):
            _check_dataset(config, dataset, source, reader, step)


def _check_dataset(
    config: Config, dataset: ConfigDict, source: dict[str, Any], reader: SceneReader, step: Step
) -> None:
    _check_folders(dataset)
    if config.get("default_scope"):
        init_default_scope(config.default_scope)
    with DATASETS.switch_scope_and_registry(None) as registry:  # get alone looks in no scope
        if isinstance(source["type"], str) and registry.get(source["type"]) is None:
            return  # the Runner says so, with the closest names
        built = registry.build(ConfigDict(source, pipeline=[]))
    with step("label maps"):
        _check_reduction(dataset, built.reduce_zero_label)
    with step("label maps"):
        _check_labels(built, type_name(dataset), reader)
    _check_model(config.get("model"), len(built.metainfo["classes"]), type_name(dataset))


def _datasets(config: Config, loaders: tuple[str, ...]) -> Iterator[ConfigDict]:
    for loader in loaders:
        for node in walk_dicts(config.get(loader)):
            is_local = not node.get("backend_args") and "://" not in str(node.get("data_root"))
            # A COCO dataset may have label maps beside its annotation file; its classes are others.
            is_coco = str(node.get("ann_file", "")).endswith(".json")
            if "type" in node and (node.get("data_prefix") or {}).get("seg_map_path") and is_local and not is_coco:
                yield node


def _check_folders(dataset: ConfigDict) -> None:
    for key in ("img_path", "seg_map_path"):
        folder = Path(dataset.get("data_root") or ".", dataset.data_prefix.get(key, ""))
        if not folder.is_dir():
            how = f". {ade20k.HOW_TO_GET_ADE20K}" if type_name(dataset) == "ADE20KDataset" else ""
            raise UserError(f"{type_name(dataset)}: folder {folder.absolute()} (data_prefix.{key}) does not exist{how}")
    ann_file = Path(dataset.get("data_root") or ".", dataset.get("ann_file") or "")
    if not ann_file.exists():
        raise UserError(f"{type_name(dataset)}: list of images {ann_file.absolute()} (ann_file) does not exist")
    if not ann_file.is_dir():
        stat_regular(ann_file, "list of images")


def _check_reduction(dataset: ConfigDict, reduces: bool) -> None:
    """Compare ``reduce_zero_label`` of a dataset, which its class may set, with its files' meaning and its pipeline."""
    name = type_name(dataset)
    if name == "ADE20KDataset" and not reduces:
        raise UserError(
            "ADE20KDataset: reduce_zero_label=False, but label 0 of ADE20K's files is unlabelled and its classes are "
            "the labels 1 to 150; set reduce_zero_label=True. For label maps of another kind take BaseSegDataset"
        )
    for step in walk_dicts(dataset.get("pipeline")):
        if "type" not in step or type_name(step) != "LoadAnnotations" or step.get("reduce_zero_label") is None:
            continue
        if bool(step["reduce_zero_label"]) != reduces:
            raise UserError(
                f"{name}: reduce_zero_label is {reduces}, but {step['reduce_zero_label']} in the LoadAnnotations of "
                "its pipeline; set it in the dataset and leave it out of LoadAnnotations"
            )


def _check_labels(dataset: Any, name: str, reader: SceneReader) -> None:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    folder = dataset.data_prefix["seg_map_path"]
    if not infos:
        raise UserError(f"{name}: {dataset.data_prefix['img_path']} holds no image that ends in {dataset.img_suffix}")
    if not dataset.seg_map_suffix.lower().endswith(tuple(READABLE)):
        return  # volumes and the like, which only their own loaders read
    # With classes of the user's choice the files still hold those of the data set.
    known = type(dataset).METAINFO.get("classes") or dataset.metainfo["classes"]
    report = check_label_images(
        [(Path(info["img_path"]), Path(info["seg_map_path"])) for info in infos],
        len(known if dataset.label_map else dataset.metainfo["classes"]),
        reduce_zero_label=dataset.reduce_zero_label,
        ignore_index=dataset.ignore_index,
        reader=reader,
    )
    # The loader reduces first, and then gives left-out classes the ignored label.
    left_out = {index for index, new in (dataset.label_map or {}).items() if new in (-1, 255)}
    classes = known if dataset.label_map else dataset.metainfo["classes"]
    offset = int(bool(dataset.reduce_zero_label))
    values = {index + offset: each for index, each in enumerate(classes) if index not in left_out}
    for warning in (*report.warnings, *_occurrence(report, values, folder)):
        logger.warning("%s: %s", folder, warning)
    zero = "is left out (reduce_zero_label=True)" if dataset.reduce_zero_label else f"is the class {known[0]!r}"
    logger.info("%s: %d images; label 0, %.1f %% of the pixels, %s", folder, report.images, 100 * report.share(0), zero)
    if dataset.reduce_zero_label and report.share(0) > ZERO_IS_LARGE:
        logger.warning(
            "%s: label 0 is %.0f %% of the pixels, and reduce_zero_label=True leaves it out; if it is a class, set "
            "reduce_zero_label=False",
            folder,
            100 * report.share(0),
        )


def _occurrence(report: LabelReport, values: dict[int, str], folder: str) -> tuple[str, ...]:
    try:
        return check_classes_occur(report, values)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _check_model(model: ConfigDict | None, classes: int, name: str) -> None:
    """Compare the number of classes of every decode head with the dataset's."""
    for node in walk_dicts(model):
        for key in ("decode_head", "auxiliary_head"):
            heads = node.get(key) or []
            for head in [heads] if isinstance(heads, dict) else heads:
                _check_head(head, f"{key}", classes, name)


def _check_head(head: ConfigDict, key: str, classes: int, name: str) -> None:
    if head.get("num_classes", classes) != classes:
        raise UserError(
            f"model.{key}.num_classes is {head.num_classes}, but {name} has {classes} classes; make them equal"
        )
    # Mask2Former's heads weigh each class and "no object" by this list.
    weights = (head.get("loss_cls") or {}).get("class_weight")
    if "num_queries" in head and weights is not None and len(weights) != classes + 1:
        raise UserError(
            f"model.{key}.loss_cls.class_weight has {len(weights)} numbers; {classes} classes need {classes + 1}, "
            "the last one for queries without an object"
        )

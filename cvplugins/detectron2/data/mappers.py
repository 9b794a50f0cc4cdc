"""What makes a model's input from a record: Detectron2's mappers, and Mask2Former's, for label maps of any kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform

from cvplugins.datasets import without_zero_label
from cvplugins.detectron2.mask2former.checkout import import_mask2former
from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.errors import UserError

__all__ = ["ReduceZeroLabel", "build_mapper"]

# By INPUT.DATASET_MAPPER_NAME, as in the build_train_loader of Mask2Former's train_net.py.
OF_MASK2FORMER = {
    "mask_former_semantic": "MaskFormerSemanticDatasetMapper",
    "mask_former_panoptic": "MaskFormerPanopticDatasetMapper",
    "mask_former_instance": "MaskFormerInstanceDatasetMapper",
    "coco_instance_lsj": "COCOInstanceNewBaselineDatasetMapper",
    "coco_panoptic_lsj": "COCOPanopticNewBaselineDatasetMapper",
}


def build_mapper(
    cfg: CfgNode, names: Sequence[str], augmentations: Sequence[T.Augmentation] | None = None
) -> Callable[[dict[str, Any]], Any]:
    """Return what maps the records of datasets for a model in training.

    Args:
        cfg: Detectron2's config.
        names: The datasets; if the metadata says ``reduce_zero_label`` their label maps are shifted.
        augmentations: In place of those of the config.

    Raises:
        UserError: There is no such mapper, or only some of the datasets' label maps have to be shifted.
    """
    kind = _kind(cfg)
    options = kind.from_config(cfg, True)
    key = "tfm_gens" if "tfm_gens" in options else "augmentations"
    if augmentations is not None:
        options[key] = list(augmentations)
        if "size_divisibility" in options:
            options["size_divisibility"] = -1  # Mask2Former's would cut images to the size of the training's crops
    reduced = {bool(MetadataCatalog.get(name).get("reduce_zero_label", False)) for name in names}
    if len(reduced) > 1:
        raise UserError(f"of {', '.join(names)} some have label maps that begin with 1; train on one kind at a time")
    if reduced == {True}:
        options[key] = [ReduceZeroLabel(), *options[key]]
    return kind(**options)


class ReduceZeroLabel(NoOpTransform):
    """Let the classes of a label map count from 0, and what was 0 be ignored; the image stays as it is.

    Example::

        T.AugmentationList([ReduceZeroLabel(), T.RandomFlip()])
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the shifted labels."""
        return without_zero_label(segmentation)


def _kind(cfg: CfgNode) -> type[Any]:
    if not is_mask2former(cfg):
        return DatasetMapper
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in OF_MASK2FORMER:
        raise UserError(f"INPUT.DATASET_MAPPER_NAME is {name!r}; use {' or '.join(OF_MASK2FORMER)}")
    return getattr(import_mask2former(), OF_MASK2FORMER[name])

"""A hook that writes a segmentation test's predictions as images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook

from cvplugins.files import write_whole
from cvplugins.openmmlab.metrics.base import as_array
from cvplugins.registry import HOOKS
from cvplugins.reporting import draw_label_overlay

__all__ = ["SegmentationImagesHook"]


@HOOKS.register_module()
class SegmentationImagesHook(Hook):
    """Write what mmseg's models predict in a test: overlays for people, label maps for a benchmark's server.

    Every process writes its own images, each file whole or not at all, under the image's name and subfolder.

    Args:
        overlay_dir: Folder for the image, the prediction and the annotation side by side, with a legend; None for none.
        label_dir: Folder for PNG label maps of the images' own sizes, with the labels of the data set's files: where
            ``reduce_zero_label`` is set, classes count from 1 (ADE20K's server takes 1 to 150). None for none.
        opacity: Of the colours of the overlays, in [0, 1].
    """

    def __init__(
        self,
        overlay_dir: str | os.PathLike | None = None,
        label_dir: str | os.PathLike | None = None,
        opacity: float = 0.6,
    ) -> None:
        self.overlay_dir = overlay_dir
        self.label_dir = label_dir
        self.opacity = opacity

    def after_test_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] = ()) -> None:
        """Write the images of a batch."""
        dataset = runner.test_dataloader.dataset
        for sample in outputs:
            name = Path(os.path.relpath(sample.img_path, dataset.data_prefix["img_path"])).with_suffix(".png")
            prediction = _labels(sample.pred_sem_seg)
            if self.label_dir is not None:
                first = int(bool(sample.get("reduce_zero_label", False)))
                _write(Path(self.label_dir, name), (prediction + first).astype(np.uint8))
            if self.overlay_dir is not None:
                image = mmcv.imread(sample.img_path, channel_order="rgb")
                drawn = draw_label_overlay(
                    image,
                    prediction,
                    dataset.metainfo["classes"],
                    dataset.metainfo["palette"],
                    label=_labels(sample.gt_sem_seg) if "gt_sem_seg" in sample else None,
                    opacity=self.opacity,
                )
                _write(Path(self.overlay_dir, name), drawn)


def _labels(plane: Any) -> np.ndarray:
    labels = as_array(plane.data).astype(np.int64)
    return labels.reshape(labels.shape[-2:])


def _write(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    with write_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", optimize=pixels.ndim == 2)

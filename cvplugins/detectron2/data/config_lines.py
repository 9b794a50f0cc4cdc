"""Lines for configs of Detectron2 that follow from what a data set holds. No framework is needed to write them."""

from __future__ import annotations

from collections.abc import Sequence

from cvplugins.datasets.statistics import AnchorFit

__all__ = ["detection_lines", "segmentation_lines"]


def detection_lines(weights: Sequence[float], threshold: float, anchors: AnchorFit | None) -> str:
    """Return lines for a detector with a feature pyramid.

    Args:
        weights: Of the classes.
        threshold: Of the ``RepeatFactorTrainingSampler``; 0 to leave it out.
        anchors: What :func:`cvplugins.datasets.statistics.fit_anchors` returned.
    """
    lines = ["MODEL:", "  ROI_HEADS: {NAME: CvpluginsStandardROIHeads}"]
    if anchors is not None:
        sizes = [[round(stride * anchors.scale, 1)] for stride in anchors.strides]
        lines += ["  ANCHOR_GENERATOR:", f"    SIZES: {sizes}", f"    ASPECT_RATIOS: [{_numbers(anchors.ratios)}]"]
    if threshold:
        lines += [
            "DATALOADER:  # images with rare classes come more often",
            "  SAMPLER_TRAIN: RepeatFactorTrainingSampler",
            f"  REPEAT_THRESHOLD: {threshold:.4g}",
        ]
    return "\n".join(
        [
            *lines,
            "CVPLUGINS:  # one weight a class, and the last one for the background",
            f"  LOSSES: {{CLS: {{type: CrossEntropyLoss, class_weight: {_numbers((*weights, 1.0))}}}}}",
        ]
    )


def segmentation_lines(weights: Sequence[float]) -> str:
    """Return lines for the original Mask2Former with this package's losses.

    Args:
        weights: Of the classes.
    """
    return "\n".join(
        [
            "MODEL: {META_ARCHITECTURE: CvpluginsMaskFormer}",
            "CVPLUGINS:  # one weight a class, and the last one for queries without an object",
            f"  LOSSES: {{M2F_CLS: {{type: CrossEntropyLoss, class_weight: {_numbers((*weights, 1.0))}}}}}",
        ]
    )


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"

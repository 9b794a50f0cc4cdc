"""Lines for configs of OpenMMLab that follow from what a data set holds. No framework is needed to write them."""

from __future__ import annotations

from collections.abc import Sequence

from cvplugins.datasets.statistics import AnchorFit

__all__ = ["detection_lines", "segmentation_lines"]

NO_OBJECT = 0.1  # what Mask2Former weighs queries without an object by


def detection_lines(weights: Sequence[float], threshold: float, anchors: AnchorFit | None) -> str:
    """Return lines for a two-stage detector of mmdet.

    Args:
        weights: Of the classes.
        threshold: Of ``ClassBalancedDataset``; 0 to leave it out.
        anchors: What :func:`cvplugins.datasets.statistics.fit_anchors` returned.
    """
    lines = [
        "# One weight a class, and the last one for the background.",
        "model = dict(",
        "    roi_head=dict(bbox_head=dict(loss_cls=dict(",
        "        type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, _delete_=True,",
        f"        class_weight={_numbers((*weights, 1.0))}))),",
    ]
    if anchors is not None:
        lines += [
            "    rpn_head=dict(anchor_generator=dict(",
            f"        type='AnchorGenerator', scales=[{anchors.scale:g}], ratios={_numbers(anchors.ratios)},",
            f"        strides={list(anchors.strides)}, _delete_=True)),",
        ]
    lines.append(")")
    if threshold:
        lines += [
            "# Images with rare classes come more often: put it around the dataset of the training.",
            f"class_balanced = dict(type='ClassBalancedDataset', oversample_thr={threshold:.4g})",
            "# train_dataloader = dict(dataset=dict(**class_balanced, dataset=<the dataset>, _delete_=True))",
        ]
    return "\n".join(lines)


def segmentation_lines(weights: Sequence[float]) -> str:
    """Return lines for mmseg: of decode heads that classify pixels, and of Mask2Former's.

    Args:
        weights: Of the classes.
    """
    return "\n".join(
        [
            "# Heads that classify pixels, such as FCNHead:",
            "pixel_loss = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0,",
            f"    class_weight={_numbers(weights)})",
            "# model = dict(decode_head=dict(loss_decode=dict(**pixel_loss, _delete_=True)))",
            "# Mask2Former, with a last weight for queries without an object:",
            f"query_weight = {_numbers((*weights, NO_OBJECT))}",
            "# model = dict(decode_head=dict(loss_cls=dict(class_weight=query_weight)))",
        ]
    )


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"

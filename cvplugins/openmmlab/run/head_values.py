"""Numbers of a detector's samplers, assigners and tests that mmdet takes, and with which it learns or finds nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor, nn

from cvplugins.errors import UserError
from cvplugins.refusals import did_you_mean, shown

from .config_walk import Part, at, walk

__all__ = ["check_anchors", "check_head_values"]

NMS = ("nms", "soft_nms", "nms_match", "nms_rotated", "nms_quadri")


class _Rule(NamedTuple):
    holds: Callable[[Any], bool]
    expected: str


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _are_shares(value: Any) -> bool:
    return _is_share(value) or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_share, value)))


def _is_no_word(value: Any) -> bool:
    return not isinstance(value, (str, bool))


# By the key, anywhere in the model. mmdet's own configs pass.
RULES = {
    "score_thr": _Rule(_is_no_word, "a number"),
    "mask_thr_binary": _Rule(_is_no_word, "a number"),
    "min_bbox_size": _Rule(_is_no_word, "a number"),
    "pos_weight": _Rule(_is_no_word, "a number; 0 or less is 1"),
    "allowed_border": _Rule(_is_no_word, "a number; below 0 allows all"),
    "pad_size_divisor": _Rule(lambda value: _is_whole(value) and value > 0, "a whole number, 1 or more"),
    "nms_pre": _Rule(_is_no_word, "a number; 0 or less keeps all"),
    "max_per_img": _Rule(lambda value: _is_whole(value) and value >= -1, "a whole number; -1 keeps all"),
    "iou_threshold": _Rule(lambda value: _is_number(value) and value >= 0, "an IoU, from 0 to 1"),
    "loss_weight": _Rule(
        lambda value: not isinstance(value, str) and not (_is_number(value) and value < 0), "a number, 0 or more"
    ),
}
OF_ASSIGNERS = {
    "pos_iou_thr": _Rule(_is_share, "an IoU, from 0 to 1"),
    "neg_iou_thr": _Rule(_are_shares, "an IoU, from 0 to 1, or two of them"),
}
OF_SAMPLERS = {
    "num": _Rule(lambda value: _is_whole(value) and value > 0, "a whole number, 1 or more"),
    "pos_fraction": _Rule(_is_share, "a share, from 0 to 1"),
    "neg_pos_ub": _Rule(lambda value: _is_number(value) and value >= -1, "0 or more, or -1 for no bound"),
}


def check_head_values(cfg: Config) -> None:
    """Raise ``UserError`` for values of a model with which no sample is drawn, no box assigned, or none found."""
    for part in walk(cfg.get("model"), "model"):
        if not isinstance(part.value, dict):
            continue
        kind = str(part.value.get("type", "")).rpartition(".")[2]
        rules = dict(RULES)
        if part.key == "assigner" or kind.endswith("Assigner"):
            rules |= OF_ASSIGNERS
        if part.key == "sampler" or kind.endswith("Sampler"):
            rules |= OF_SAMPLERS
        for key, rule in rules.items():
            value = part.value.get(key)
            if value is not None and not rule.holds(value):
                raise UserError(f"{part.path}.{key} = {shown(value)}: expected {rule.expected}")
        if part.key == "nms":
            _check_nms(part)


def check_anchors(cfg: Config, model: nn.Module) -> None:
    """Raise ``UserError`` for anchors without a size, which match no object, so that a head learns background alone.

    Args:
        cfg: The config.
        model: Its model.
    """
    for name, module in model.named_modules():
        for key in ("anchor_generator", "prior_generator"):
            anchors = getattr(getattr(module, key, None), "base_anchors", None)
            for level, each in enumerate(anchors if isinstance(anchors, list) else ()):
                # Anchors of other forms, rotated ones, have other columns.
                if isinstance(each, Tensor) and each.shape[-1:] == (4,) and not _has_size(each).all():
                    empty = each[~_has_size(each)][0].tolist()
                    raise UserError(
                        f"{_odd_option(cfg, f'model.{name}.anchor_generator')}: anchor {empty} of level {level} has no "
                        "width or height; ratios, scales, sizes and strides are above 0"
                    )


def _has_size(anchors: Tensor) -> Tensor:
    return (anchors[..., 2:] > anchors[..., :2]).all(-1)


def _odd_option(cfg: Config, path: str) -> str:
    """Return the option of an anchor generator with a number of 0 or less, and its value; all if there is none."""
    for part in walk(at(cfg, path), path):
        if _is_number(part.value) and not part.value > 0 and "center_offset" not in part.path:
            key = ".".join(part.path.split(".")[: path.count(".") + 2])
            return f"{key} = {shown(at(cfg, key))}"
    return f"{path} = {shown(at(cfg, path))}"


def _check_nms(part: Part) -> None:
    """Refuse a kind that is no function of mmcv's, which looks for it among its names when boxes are found."""
    kind = part.value.get("type", "nms")
    module = importlib.import_module("mmcv.ops.nms")  # mmcv.ops has a function of this name
    if isinstance(kind, str) and not callable(getattr(module, kind, None)):
        guess = did_you_mean(kind, NMS)
        raise UserError(
            f"{part.path}.type = {shown(kind)}: mmcv has no such operator; {guess or 'it has nms, soft_nms'}"
        )

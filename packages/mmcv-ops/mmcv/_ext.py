"""mmcv's compiled module without a compiler: each name translates mmcv's calling convention to ``cvplugins.ops``.

The convention: tensors first, then options by the names that mmcv/ops/csrc/pytorch/pybind.cpp gives them. Most
operators write into tensors that the caller has made (``output``, ``grad_input``) and return nothing. Nothing is
computed here. Functions stand in sections, one for each file of ``cvplugins.ops``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

from torch import Tensor

from cvplugins.ops import deformable_attention, focal
from cvplugins.ops import nms as suppression
from cvplugins.ops import roi_align as aligned_regions
from cvplugins.ops import roi_pool as pooled_regions

# ---------------------------------------------------------------------------------------------------------------------
# What mmcv says about its build
# ---------------------------------------------------------------------------------------------------------------------


def get_compiler_version() -> str:
    """Return what stands where a compiled mmcv names its compiler."""
    return "none (cvplugins-mmcv-ops)"


def get_compiling_cuda_version() -> str:
    """Return what an mmcv that was compiled without CUDA returns."""
    return "not available"


# ---------------------------------------------------------------------------------------------------------------------
# Non-maximum suppression
# ---------------------------------------------------------------------------------------------------------------------

SOFT_NMS_METHODS = ("naive", "linear", "gaussian")  # by their number in mmcv/ops/nms.py


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes by falling score."""
    return suppression.nms(boxes, scores, iou_threshold=iou_threshold, offset=offset)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Write the kept boxes with their new scores into the first rows of ``dets``; return their indices."""
    kept, indices = suppression.soft_nms(
        boxes,
        scores,
        iou_threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        method=SOFT_NMS_METHODS[method],
        offset=offset,
    )
    dets[: len(kept)] = kept
    return indices


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return with the index of each kept box those of the boxes that it suppressed; scores are the fifth column."""
    return suppression.nms_match(dets[:, :4], dets[:, 4], iou_threshold=iou_threshold)


# ---------------------------------------------------------------------------------------------------------------------
# RoIAlign and RoIPool
# ---------------------------------------------------------------------------------------------------------------------

MAXIMUM = 0  # pool_mode in mmcv/ops/roi_align.py; 1 is the average


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output``; for maxima also ``argmax_y`` and ``argmax_x``, which are empty for averages."""
    grid = aligned_regions.RoIGrid(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    if pool_mode == MAXIMUM:
        for given, found in zip(
            (output, argmax_y, argmax_x), aligned_regions.roi_align_max(input, rois, grid), strict=True
        ):
            given.copy_(found)
    else:
        output.copy_(aligned_regions.roi_align(input, rois, grid))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input``."""
    grid = aligned_regions.RoIGrid(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    if pool_mode == MAXIMUM:
        found = aligned_regions.roi_align_max_backward(grad_output, rois, argmax_y, argmax_x, grad_input.shape)
    else:
        found = aligned_regions.roi_align_backward(grad_output, rois, grad_input.shape, grid)
    grad_input.copy_(found)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``output`` and ``argmax``."""
    size = (pooled_height, pooled_width)
    maxima, indices = pooled_regions.roi_pool(input, rois, output_size=size, spatial_scale=spatial_scale)
    output.copy_(maxima)
    argmax.copy_(indices)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``grad_input``."""
    grad_input.copy_(pooled_regions.roi_pool_backward(grad_output, rois, argmax, grad_input.shape))


# ---------------------------------------------------------------------------------------------------------------------
# Focal losses
# ---------------------------------------------------------------------------------------------------------------------


def _factors(weight: Tensor) -> Tensor | None:
    """Return the factors of the classes; mmcv passes an empty tensor for none."""
    return weight if weight.numel() else None


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` ``(N, C)``."""
    output.copy_(focal.sigmoid_focal_loss(input, target, gamma=gamma, alpha=alpha, weight=_factors(weight)))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` ``(N, C)``."""
    slope = focal.sigmoid_focal_loss_backward(input, target, gamma=gamma, alpha=alpha, weight=_factors(weight))
    grad_input.copy_(slope)


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` ``(N,)``; ``input`` is a softmax."""
    output.copy_(focal.softmax_focal_loss(input, target, gamma=gamma, alpha=alpha, weight=_factors(weight)))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``buff`` ``(N,)`` and ``grad_input`` ``(N, C)``; ``input`` is a softmax."""
    slope, gradient = focal.softmax_focal_loss_backward(
        input, target, gamma=gamma, alpha=alpha, weight=_factors(weight)
    )
    buff.copy_(slope)
    grad_input.copy_(gradient)


# ---------------------------------------------------------------------------------------------------------------------
# Multi-scale deformable attention
# ---------------------------------------------------------------------------------------------------------------------


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Return the output; all images of a batch are computed at once, whatever ``im2col_step`` is."""
    return deformable_attention.deformable_attention_forward(
        value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill ``grad_value``, ``grad_sampling_loc`` and ``grad_attn_weight``."""
    gradients = deformable_attention.deformable_attention_backward(
        grad_output,
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
    )
    for given, found in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        given.copy_(found)


# ---------------------------------------------------------------------------------------------------------------------
# Everything else
# ---------------------------------------------------------------------------------------------------------------------


def __getattr__(name: str) -> Callable[..., Any]:
    """Return a function that names an operator which needs the compiled mmcv; mmcv/utils/ext_loader.py asks for all."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name} is not in cvplugins-mmcv-ops; it needs the compiled mmcv: {_compile_command()}"
        )

    return missing


def _compile_command() -> str:
    """Return the command that compiles the installed version of mmcv; mmcv-lite is mmcv without operators."""
    installed = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    source = "onedl-mmcv" if "onedl-mmcv" in installed else "mmcv"
    version = installed.get(source) or installed.get("mmcv-lite")
    requirement = source if version is None else f"{source}=={version}"
    return f"pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps {requirement}"

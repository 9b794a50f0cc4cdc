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

from cvplugins.ops import carafe, deform_conv, deformable_attention, focal, masked_conv, psa_mask
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
# Deformable convolution
# ---------------------------------------------------------------------------------------------------------------------


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **options: int
) -> None:
    """Write a deformable convolution to ``output``; the other buffers, and ``im2col_step``, are for mmcv's kernel."""
    output.copy_(deform_conv.deform_conv2d(input, offset, weight, geometry=_deform_geometry(**options)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **options: int,
) -> None:
    """Write two of the three gradients; the third waits in the buffer ``columns`` for the call that asks for it."""
    gradients = deform_conv.deform_conv2d_backward(
        gradOutput, input, offset, weight, geometry=_deform_geometry(**options)
    )
    gradInput.add_(gradients.input)
    gradOffset.copy_(gradients.offset)
    columns.resize_(weight.shape).copy_(gradients.weight)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **options: int,
) -> None:
    """Add the weight's gradient, which ``deform_conv_backward_input`` may have left in ``columns``."""
    if columns.shape == gradWeight.shape:
        gradWeight.add_(columns, alpha=scale)
        columns.resize_(0)
        return
    # The gradient does not depend on the weight's values.
    gradients = deform_conv.deform_conv2d_backward(
        gradOutput, input, offset, gradWeight, geometry=_deform_geometry(**options)
    )
    gradWeight.add_(gradients.weight, alpha=scale)


def _deform_geometry(
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> deform_conv.ConvGeometry:
    return deform_conv.ConvGeometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **options: int,
) -> None:
    """Write a modulated deformable convolution to ``output``; a bias that is not meant is an empty tensor."""
    offset, mask = (_read_in_order(each, output.shape[2:]) for each in (offset, mask))
    geometry = _modulated_geometry(**options)
    output.copy_(deform_conv.deform_conv2d(input, offset, weight, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **options: int,
) -> None:
    """Write the gradients; those of the input and of the parameters are added to what is there, as in mmcv's kernel."""
    offset, mask = (_read_in_order(each, grad_output.shape[2:]) for each in (offset, mask))
    gradients = deform_conv.deform_conv2d_backward(
        grad_output, input, offset, weight, mask, _modulated_geometry(**options)
    )
    grad_input.add_(gradients.input)
    grad_weight.add_(gradients.weight)
    for given, found in ((grad_offset, gradients.offset), (grad_mask, gradients.mask)):
        given.zero_()
        _read_in_order(given, grad_output.shape[2:]).copy_(found)
    if with_bias:
        grad_bias.add_(gradients.bias)


def _read_in_order(numbers: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return offsets or masks as mmcv's kernels read them: one number after the other, in lines of the output's width.

    mmdet/models/necks/dyhead.py (onedl-mmdetection 3.5.1) gives a small level the offsets of a larger one.
    """
    images, channels, height, width = numbers.shape
    wanted = size[0] * size[1]
    if height * width <= wanted:
        return numbers
    return numbers.view(images, -1)[:, : channels * wanted].view(images, channels, *size)


def _modulated_geometry(
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
) -> deform_conv.ConvGeometry:
    return deform_conv.ConvGeometry(
        (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    )


# ---------------------------------------------------------------------------------------------------------------------
# CARAFE
# ---------------------------------------------------------------------------------------------------------------------


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **options: int) -> None:
    """Write the upsampled features to ``output``."""
    output.copy_(carafe.carafe(features, masks, **options))


def carafe_naive_backward(
    top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor, **options: int
) -> None:
    """Add both gradients to what is there, as mmcv's kernel does."""
    grad_features, grad_masks = carafe.carafe_backward(top_grad, features, masks, **options)
    bottom_grad.add_(grad_features)
    mask_grad.add_(grad_masks)


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **options: int
) -> None:
    """Write the upsampled features to ``output``, and to ``rfeatures`` what the backward call is given as features."""
    output.copy_(carafe.carafe(features, masks, **options))
    rfeatures.copy_(features)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **options: int,
) -> None:
    """Write both gradients; the tensors with an ``r`` are buffers of mmcv's kernel, but for ``rfeatures``."""
    grad_features, grad_masks = carafe.carafe_backward(top_grad, rfeatures, masks, **options)
    bottom_grad.copy_(grad_features)
    mask_grad.copy_(grad_masks)


# ---------------------------------------------------------------------------------------------------------------------
# Masked convolution
# ---------------------------------------------------------------------------------------------------------------------


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the patches of the chosen pixels to ``col``."""
    col.copy_(masked_conv.patches_at(im, mask_h_idx, mask_w_idx, (kernel_h, kernel_w), (pad_h, pad_w)))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the columns to the chosen pixels of ``im``."""
    masked_conv.columns_to_pixels(col, mask_h_idx, mask_w_idx, im)


# ---------------------------------------------------------------------------------------------------------------------
# Masks of point-wise spatial attention
# ---------------------------------------------------------------------------------------------------------------------

COLLECT = 0  # psa_type in mmcv/ops/psa_mask.py; 1 distributes


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, h_mask: int, w_mask: int, **sizes: int) -> None:
    """Write the weights by absolute position to ``output``; the other sizes follow from the shapes."""
    forward = psa_mask.psa_collect if psa_type == COLLECT else psa_mask.psa_distribute
    output.copy_(forward(input, (h_mask, w_mask)))


def psamask_backward(
    grad_output: Tensor, grad_input: Tensor, psa_type: int, h_mask: int, w_mask: int, **sizes: int
) -> None:
    """Write the gradient of the weights by relative position."""
    backward = psa_mask.psa_collect_backward if psa_type == COLLECT else psa_mask.psa_distribute_backward
    grad_input.copy_(backward(grad_output, (h_mask, w_mask)))


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
    """Return the command that compiles the installed version of mmcv; mmcv-lite is mmcv without its operators."""
    fork, original, lite = (_installed(name) for name in ("onedl-mmcv", "mmcv", "mmcv-lite"))
    tools, source = (
        ("setuptools>=80", f"onedl-mmcv=={fork}") if fork else ("setuptools<70", f"mmcv=={original or lite}")
    )
    commands = [
        f'pip install "{tools}" wheel ninja',
        f"pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps {source}",
    ]
    return " && ".join(["pip uninstall -y mmcv-lite", *commands] if lite else commands)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

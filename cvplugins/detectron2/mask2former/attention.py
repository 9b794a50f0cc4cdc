"""The module ``MultiScaleDeformableAttention``, which the original Mask2Former compiles, on ``cvplugins.ops``."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from cvplugins.ops.deformable_attention import deformable_attention_backward, deformable_attention_forward

__all__ = ["attention_module"]


def attention_module(name: str) -> ModuleType:
    """Return a module with the functions of mask2former/modeling/pixel_decoder/ops/src/vision.cpp."""
    module = ModuleType(name)
    module.__dict__.update(ms_deform_attn_forward=_forward, ms_deform_attn_backward=_backward)
    return module


def _forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Return the output; all images of a batch are computed at once, whatever ``im2col_step`` is."""
    return deformable_attention_forward(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


def _backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    im2col_step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return deformable_attention_backward(
        grad_output, value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )

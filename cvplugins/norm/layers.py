"""Layers that a batch norm can become while it keeps its parameters and statistics."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["ConvertedGroupNorm", "ConvertedLayerNorm2d", "FrozenBatchNorm"]


class FrozenBatchNorm(_BatchNorm):
    """Batch norm that always normalises by its running statistics and never moves them, in training too.

    Detectron2 and torchvision keep weight and bias of their frozen layers as buffers. Here they stay parameters
    without a gradient, so that names, checkpoints and optimizers are those of batch norm. The mode has no effect.

    Args:
        num_features: Channels ``C`` of the input.
        eps: Added to the variance.

    Example:
        >>> import torch
        >>> layer = FrozenBatchNorm(1, eps=0.0)
        >>> layer(torch.tensor([[1.0], [3.0]]))
        tensor([[1.],
                [3.]])
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """Scale and shift ``input`` of shape ``(N, C, *)``."""
        self._check_input_dim(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")


class ConvertedGroupNorm(nn.GroupNorm):
    """Group norm in the place of a batch norm, whose running statistics it keeps for the way back."""


class ConvertedLayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of ``(N, C, *)``, as ConvNeXt's, in the place of a batch norm."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the channels at each position."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)

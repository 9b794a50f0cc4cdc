"""Batch normalisation over the joined batch of all ranks, on any device and backend."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from cvplugins.distributed import is_distributed, rank, sum_over_ranks, world_size

from .moments import all_but_channels, channel_moments

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of the joined batch of all ranks.

    Output, gradient of the input (of the sum of all ranks' losses) and running statistics are what one process
    computes from the concatenated batch; ranks may have images of different number and size, or none. The
    gradients of weight and bias are the sums over the rank's own batch, which DistributedDataParallel
    averages, as with ``torch.nn.SyncBatchNorm``. One collective forward, one backward. In evaluation mode,
    without a process group or with one rank it is plain batch normalisation. Unlike ``torch.nn.SyncBatchNorm``
    it also works on CPU. Every rank of the group has to run the layer, and backward through it, equally often.

    Args:
        num_features: Channels ``C`` of the input.
        eps: Added to the variance.
        momentum: Weight of a batch in the running statistics; None for the plain average of all batches.
        affine: Learn a weight and a bias.
        track_running_stats: Keep running statistics; without, evaluation uses those of the rank's own batch.
        process_group: Ranks that share statistics; all if None.
        device: Of parameters and buffers.
        dtype: Of parameters and buffers.

    Shape:
        Input and output ``(N, C, *)``, of at least two dimensions; float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: In training, when all ranks together have one value per channel; on all ranks.

    Example:
        >>> SyncBatchNorm(2)(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
        tensor([[-1.0000, -1.0000],
                [ 1.0000,  1.0000]], grad_fn=<NativeBatchNormBackward0>)
    """

    process_group: dist.ProcessGroup | None = None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``."""
        if not (self.training and is_distributed(self.process_group)):
            return super().forward(input)
        self._check_input_dim(input)
        output: Tensor
        output, mean, var, count = _JointBatchNorm.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, self.process_group
        )
        self._track(mean, var, count)
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of a batch with ``count`` values per channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1).clamp(min=1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            moved = torch.lerp(running.to(new.dtype), new, momentum)
            running.copy_(torch.where(count > 0, moved, running))

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncBatchNorm:
        # A process group can neither be copied nor pickled; the copy of a layer belongs to the same one.
        memo[id(self.process_group)] = self.process_group
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")


class _JointBatchNorm(Function):
    """Normalise by the statistics of all ranks; return these too: mean, biased variance, count."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _joint_statistics(input, group)
        ctx.save_for_backward(input, weight, mean, (var + eps).rsqrt(), count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, var, count)
        weight, bias = (None if x is None else x.to(mean.dtype) for x in (weight, bias))
        return F.batch_norm(input, mean, var, weight, bias, eps=eps), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, invstd, count = ctx.saved_tensors
        dims, shape = all_but_channels(input)
        normalised = (input - mean.view(shape)) * invstd.view(shape)
        grad_weight, grad_bias = (grad * normalised).sum(dims), grad.sum(dims, dtype=mean.dtype)
        grad_input = None
        if ctx.needs_input_grad[0]:
            sums = sum_over_ranks(torch.cat([grad_weight, grad_bias]), ctx.group)
            along_normalised, along_ones = (x.view(shape) for x in (sums / count).chunk(2))
            grad_input = grad - (along_normalised * normalised + along_ones)
            grad_input *= (invstd if weight is None else invstd * weight).view(shape)
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        return grad_input, grad_weight if needs_weight else None, grad_bias if needs_bias else None, None, None


def _joint_statistics(input: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean ``(C,)``, biased variance ``(C,)`` and number of values ``()`` per channel over all ranks."""
    channels = input.shape[1]
    own_count = input.numel() // channels
    rows = input.new_zeros((world_size(group), 2 * channels + 1), dtype=torch.promote_types(input.dtype, torch.float32))
    if own_count:
        own = rows[rank(group)]
        own[:-1] = torch.cat(channel_moments(input))
        own[-1] = own_count  # fills on the device; a tensor made here would have to be copied there
    # Every rank fills its own row, so that the sum is an exact gather, which every backend has.
    sum_over_ranks(rows, group)
    means, variances, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
    count = counts.sum()
    # A rank with more than one value knows the answer, so that only tiny inputs wait for the device.
    if own_count <= 1 and count == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got one on all ranks together "
            f"(input size {tuple(input.shape)} on this one); use larger batches or images, or freeze the layer"
        )
    # Chan, Golub and LeVeque, 1983: unlike E[x^2] - E[x]^2 no difference of large numbers.
    share = counts / count.clamp(min=1)
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return mean, var, count

"""SyncBatchNorm as a layer for ``norm_cfg``, and the model wrapper that applies it to a whole model."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from torch import nn

from cvplugins.norm import NormRule, SyncBatchNorm, apply_norm_policy, convert_batch_norm
from cvplugins.registry import MODEL_WRAPPERS, MODELS

__all__ = ["SyncBatchNormDataParallel"]

MODELS.register_module(module=SyncBatchNorm)


@MODEL_WRAPPERS.register_module()
class SyncBatchNormDataParallel(MMDistributedDataParallel):
    """mmengine's DDP around a model whose batch norms work over all processes; on GPUs and on CPUs.

    Used by the Runner in distributed runs only. Frozen batch norms stay as they are, and so do those of a module
    with ``norm_eval=True``, which never see batch statistics; what was done is logged. (mmengine's
    ``sync_bn='torch'`` does nothing there and does not say so, ``'mmcv'`` unfreezes them.) For any other policy, and
    in runs of one process, there is ``NormPolicyHook``; beside it give this ``convert=False``.

    Args:
        module: The model.
        convert: False leaves every layer as it is, but for torch's SyncBatchNorm on the CPU, which refuses to run.
        device_ids: As in DDP; mmengine gives the local rank also on the CPU, where DDP wants None.
        broadcast_buffers: As in DDP. Off, as in mmengine: synchronised statistics are equal on all ranks.
        options: More options of ``MMDistributedDataParallel``, such as ``find_unused_parameters``.
    """

    def __init__(
        self,
        module: nn.Module,
        convert: bool = True,
        device_ids: list[int] | None = None,
        broadcast_buffers: bool = False,
        **options: Any,
    ) -> None:
        if convert:
            summary = apply_norm_policy(module, [NormRule("SyncBN")])
            print_log("normalisation policy:\n" + summary.overview(), logger="current")
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            device_ids = None
            gpu_only = [name for name, layer in module.named_modules() if isinstance(layer, nn.SyncBatchNorm)]
            convert_batch_norm(module, include=gpu_only, frozen="convert")
        super().__init__(module, device_ids=device_ids, broadcast_buffers=broadcast_buffers, **options)

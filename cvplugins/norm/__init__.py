"""Normalisation: batch norm over all ranks, and which layers use it."""

from .fusion import FusionReport, fuse_conv_bn
from .layers import FrozenBatchNorm
from .policy import NormRule, apply_norm_policy, convert_batch_norm, norm_kinds, read_rules
from .precise import PreciseReport, recompute_statistics
from .report import BatchNormReport, BatchNormSummary, bn_report
from .summary import NormLayer, NormSummary
from .sync_batch_norm import SyncBatchNorm

__all__ = [
    "BatchNormReport",
    "BatchNormSummary",
    "FrozenBatchNorm",
    "FusionReport",
    "NormLayer",
    "NormRule",
    "NormSummary",
    "PreciseReport",
    "SyncBatchNorm",
    "apply_norm_policy",
    "bn_report",
    "convert_batch_norm",
    "fuse_conv_bn",
    "norm_kinds",
    "read_rules",
    "recompute_statistics",
]

"""Normalisation: batch norm over all ranks, and which layers use it."""

from .layers import FrozenBatchNorm
from .policy import NormRule, apply_norm_policy, convert_batch_norm, norm_kinds, read_rules
from .summary import NormLayer, NormSummary
from .sync_batch_norm import SyncBatchNorm

__all__ = [
    "FrozenBatchNorm",
    "NormLayer",
    "NormRule",
    "NormSummary",
    "SyncBatchNorm",
    "apply_norm_policy",
    "convert_batch_norm",
    "norm_kinds",
    "read_rules",
]

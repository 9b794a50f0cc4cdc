"""Normalisation: batch norm over all ranks, and which layers use it."""

from .policy import NormLayer, NormSummary, convert_batch_norm
from .sync_batch_norm import SyncBatchNorm

__all__ = ["NormLayer", "NormSummary", "SyncBatchNorm", "convert_batch_norm"]

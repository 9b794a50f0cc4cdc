"""Hook: keep the weights of the best evaluation."""

from __future__ import annotations

from cvplugins.monitors import BestCheckpointMonitor

from .evaluation import EvaluationHook

__all__ = ["BestCheckpointHook"]


class BestCheckpointHook(EvaluationHook):
    """Detectron2's :class:`cvplugins.monitors.BestCheckpointMonitor`; ``MODEL.WEIGHTS`` takes what it writes.

    With EMAHook these are the averaged weights, which were evaluated. Detectron2's BestCheckpointer forgets the best
    value when a run is resumed, lets the next resume start from the best checkpoint instead of the last, and only warns
    of a metric that does not exist; here it is an error that lists those that there are.
    """

    monitor_type = BestCheckpointMonitor

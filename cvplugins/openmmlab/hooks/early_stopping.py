"""EarlyStoppingHook: stop when validations no longer get better, and put the best weights back."""

from __future__ import annotations

from cvplugins.errors import UserError
from cvplugins.monitors import EarlyStoppingMonitor
from cvplugins.registry import HOOKS

from .evaluation import EvaluationHook

__all__ = ["EarlyStoppingHook"]


@HOOKS.register_module()
class EarlyStoppingHook(EvaluationHook):
    """mmengine's :class:`cvplugins.monitors.EarlyStoppingMonitor`.

    The options of mmengine's hook mean what they say here: ``min_delta`` is 0 unless set (there 0.1, while its
    docstring says 0.01, so that steady gains below 0.1 stop a run), and gains are never lost by being small.
    """

    monitor_type = EarlyStoppingMonitor
    checkpoint_key = "cvplugins_early_stopping"

    def before_train(self, runner) -> None:
        """Refuse a loop that cannot be stopped."""
        if not hasattr(runner.train_loop, "stop_training"):
            raise UserError(f"EarlyStoppingHook cannot stop a {type(runner.train_loop).__name__}: no stop_training")
        super().before_train(runner)

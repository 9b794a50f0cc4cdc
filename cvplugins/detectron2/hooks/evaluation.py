"""What hooks around a monitor of evaluations share: when an evaluation counts, and that none is owed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.engine.hooks import EvalHook

from cvplugins.errors import UserError
from cvplugins.monitors import EvaluationMonitor

from .plugin_hook import MonitorHook

__all__ = ["EvaluationHook"]


class EvaluationHook(MonitorHook):
    """A hook of Detectron2 around an :class:`cvplugins.monitors.EvaluationMonitor`.

    Detectron2 writes a checkpoint before the evaluation of the same iteration. A resumed run makes up for an
    evaluation that a kill prevented.
    """

    evaluates = True
    monitor: EvaluationMonitor
    _resumed = False

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder.

        Raises:
            UserError: There are no evaluations during the training.
        """
        if cls.evaluates and cfg.TEST.EVAL_PERIOD <= 0:
            raise UserError(
                f"it learns from evaluations during the training, and TEST.EVAL_PERIOD is {cfg.TEST.EVAL_PERIOD}; set "
                "it to the number of iterations between two"
            )
        return super().from_config(cfg)

    def monitored(self) -> dict[str, str]:
        """Return the names of the numbers that the monitor looks at, by the option that gives them."""
        return self.monitor.monitored()

    def before_step(self) -> None:
        """Make the evaluation that was due when the checkpoint of a resumed run was written, if nobody saw its end."""
        done = self.trainer.iter
        is_owed = self._resumed and done == self.trainer.start_iter and not self.monitor.knows(done)
        for hook in self.trainer._hooks if is_owed else ():
            if isinstance(hook, EvalHook) and hook._period > 0 and done % hook._period == 0:
                self.run.info(f"the evaluation after {done} iterations is made up for: the run ended before it did")
                self.trainer.iter = self.trainer.storage.iter = done - 1  # as it would have been then
                hook._do_eval()
                self.trainer.iter = self.trainer.storage.iter = done
        super().before_step()

    def evaluated(self, scalars: Mapping[str, float]) -> None:
        """Tell the monitor; Detectron2 repeats the last evaluation when a run is resumed that had come to its end."""
        done = min(self.trainer.iter + 1, self.trainer.max_iter)
        if self.monitored():
            self.monitor.evaluated(self.run, scalars, {"iteration": done})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the monitor's state when a run is resumed."""
        super().load_state_dict(state)
        self._resumed = True

"""What hooks that learn from evaluations share: none is lost or counted twice when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine.hooks import EvalHook

from cvplugins.errors import UserError
from cvplugins.monitors import Journal, value_of

from .plugin_hook import PluginHook, logger

__all__ = ["EvaluationHook"]


class EvaluationHook(PluginHook):
    """Feed a monitor with the results of each evaluation, and keep them in a journal in the output folder.

    Detectron2 writes a checkpoint before the evaluation of the same iteration. A resumed run therefore takes from the
    journal what its checkpoint does not know, and makes up for an evaluation that the kill prevented.

    Subclasses give ``monitor``, ``journal_name`` and the methods :meth:`record` and :meth:`observe`.

    Args:
        output_dir: Where the journal lies.
    """

    evaluates = True
    journal_name: str

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self._journal: Journal | None = None
        self._resumed = False
        self._last = -1  # iterations done at the last evaluation that the monitor knows

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
        return {**super().from_config(cfg), "output_dir": cfg.OUTPUT_DIR}

    def monitored(self) -> dict[str, str]:
        """Return the names of the numbers that this hook looks at, by the option that gives them."""
        raise NotImplementedError

    def value(self, scalars: Mapping[str, float], name: str, seen: bool) -> float | None:
        """Return a number of an evaluation; None if it is undefined there, which is no value yet.

        Raises:
            ValueError: No evaluation can have it.
        """
        known = getattr(self.trainer, "metric_names", None)  # CvpluginsTrainer's
        value = value_of(scalars, name, self, seen or name in scalars or (known is not None and name in known().names))
        if value is None:
            logger.info("%s: no value yet: %s is undefined in this evaluation", type(self).__name__, name)
        return value

    def record(self, scalars: Mapping[str, float]) -> dict[str, Any]:
        """Return what the monitor has to see again when the run is resumed; plain numbers."""
        raise NotImplementedError

    def observe(self, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Let the monitor see a record and act; return what to add to the record in the journal."""
        raise NotImplementedError

    def begin(self) -> None:
        """Continue the journal of a resumed run, or begin a new one."""
        self._journal = Journal(Path(self.output_dir, self.journal_name))
        for record in self._journal.rewind(self.trainer.start_iter or -1):
            if record["iteration"] > self._last:
                self._last = record["iteration"]
                self.observe(record, replayed=True)

    def before_step(self) -> None:
        """Make the evaluation that was due when the checkpoint of a resumed run was written, if nobody saw its end."""
        done = self.trainer.iter
        if done != self.trainer.start_iter or self._last >= done or not self._resumed:
            return
        for hook in self.trainer._hooks:
            if isinstance(hook, EvalHook) and hook._period > 0 and done % hook._period == 0:
                logger.info("the evaluation after %d iterations is made up for: the run ended before it did", done)
                self.trainer.iter = self.trainer.storage.iter = done - 1  # as it would have been then
                hook._do_eval()
                self.trainer.iter = self.trainer.storage.iter = done

    def evaluated(self, scalars: Mapping[str, float]) -> None:
        """Feed the monitor; evaluations outside of a training do not count, nor one that the monitor knows already.

        Detectron2 makes the last evaluation again when a run is resumed that had come to its end.
        """
        done = min(self.trainer.iter + 1, self.trainer.max_iter)
        if self._journal is not None and done > self._last:
            self._last = done
            record = {"iteration": self._last, **self.record(scalars)}
            self._journal.append({**record, **self.observe(record, replayed=False)})

    def finish(self) -> None:
        """Close the journal: evaluations after the training are not part of it."""
        self._journal = None

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, and when it was fed."""
        return {"monitor": self.monitor.state_dict(), "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.monitor.load_state_dict(state["monitor"])
        self._last, self._resumed = state["last"], True

"""What hooks that learn from validations share: no validation is lost or counted twice when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from cvplugins.monitors import Journal, value_of

from .metric_names import metric_names
from .validations_hook import ValidationsHook

__all__ = ["EvaluationHook"]


class EvaluationHook(Hook):
    """Feed a monitor with the metrics of each validation, and keep them in a journal in the work dir.

    mmengine writes a checkpoint before the validation of the same epoch. A resumed run therefore takes from the
    journal what its checkpoint does not know. :class:`ValidationsHook`, which this one brings along, makes up for a
    validation that the kill prevented.

    Subclasses give ``monitor`` (``state_dict`` and ``load_state_dict``), ``journal_name``, ``checkpoint_key`` and
    the methods :meth:`record` and :meth:`observe`.
    """

    # Before EMAHook puts the training weights back, and before CheckpointHook writes the best checkpoint.
    priority = "ABOVE_NORMAL"
    journal_name: str
    checkpoint_key: str
    monitor: Any
    _last = -1  # iteration of the last validation that the monitor knows

    def monitored(self) -> dict[str, str]:
        """Return the names of the numbers that this hook looks at, by the option that gives them."""
        raise NotImplementedError

    def value(self, runner, metrics: Mapping[str, Any], name: str, seen: bool) -> float | None:
        """Return a number of a validation; None if it is undefined there, which is no value yet.

        Raises:
            ValueError: No validation can have it.
        """
        may_come = seen or name in metrics or name in metric_names(runner).names
        value = value_of(metrics, name, self, may_come)
        if value is None:
            runner.logger.info(f"{type(self).__name__}: no value yet: {name} is undefined in this validation")
        return value

    def record(self, runner, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the monitor has to see again when the run is resumed; plain numbers."""
        raise NotImplementedError

    def observe(self, runner, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Let the monitor see a record and act; return what to add to the record in the journal."""
        raise NotImplementedError

    def before_run(self, runner) -> None:
        """Ask for the validation that a killed run owes, to be made when all hooks are ready."""
        if not any(isinstance(hook, ValidationsHook) for hook in runner.hooks):
            runner.register_hook(ValidationsHook())

    def before_train(self, runner) -> None:
        """Continue the journal of a resumed run, or begin a new one."""
        if runner.val_loop is None:
            raise ValueError(f"{type(self).__name__} learns from validations, and this run has none: set val_cfg")
        names = metric_names(runner)
        for option, name in self.monitored().items():
            names.check(name, f"{type(self).__name__}: {option}")
        self._journal = Journal(Path(runner.work_dir, self.journal_name))
        for record in self._journal.rewind(runner.iter or -1):
            if record["iteration"] > self._last:
                self._last = record["iteration"]
                self.observe(runner, record, replayed=True)

    def after_val_epoch(self, runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Feed the monitor; validations outside of a training do not count, nor one that the monitor knows already."""
        if metrics is None or not hasattr(self, "_journal") or runner.iter <= self._last:
            return
        record = {"iteration": runner.iter, "epoch": runner.epoch, **self.record(runner, metrics)}
        self._last = runner.iter
        self._journal.append({**record, **self.observe(runner, record, replayed=False)})

    def after_train(self, runner) -> None:
        """Close the journal: validations after the training are not part of it."""
        self.__dict__.pop("_journal", None)

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the monitor's state."""
        checkpoint[self.checkpoint_key] = {"monitor": self.monitor.state_dict(), "last": self._last}

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore the monitor's state when a run is resumed; weights that are only loaded belong to another run."""
        if runner._resume and self.checkpoint_key in checkpoint:
            state = checkpoint[self.checkpoint_key]
            self.monitor.load_state_dict(state["monitor"])
            self._last = state["last"]

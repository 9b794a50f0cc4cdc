"""What monitors that learn from evaluations share: none is lost or counted twice when a run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .early_stopping import EarlyStopping
from .journal import Journal
from .metric_names import value_of
from .run import Monitor, Run

__all__ = ["EvaluationMonitor", "MetricMonitor"]


class EvaluationMonitor(Monitor):
    """Feed a judge with the numbers of each evaluation, and keep them in a journal in the work dir.

    The checkpoint of an iteration may be written before its evaluation. A resumed run therefore takes from the journal
    what its checkpoint does not know. Evaluations outside of a training do not count.

    Subclasses give ``title``, ``journal_name``, ``judge`` and the methods :meth:`monitored`, :meth:`record` and
    :meth:`observe`.

    Attributes:
        title: What the log calls it.
        journal_name: The journal's file.
        judge: Whose ``state_dict`` a resumed run needs.
    """

    title: str
    journal_name: str
    judge: Any
    _journal: Journal | None = None
    _last = -1  # iterations done at the last evaluation that the judge knows

    @property
    def seen(self) -> bool:
        """Whether an evaluation had the numbers that are monitored."""
        raise NotImplementedError

    def monitored(self) -> dict[str, str]:
        """Return the names of the numbers that are looked at, by the option that gives them; none for no evaluation."""
        raise NotImplementedError

    def record(self, iteration: int, value: Callable[[str], float | None]) -> dict[str, Any]:
        """Return what the judge has to see again when the run is resumed, as plain numbers; all ranks call this.

        Args:
            iteration: How many are done.
            value: Returns a number of the evaluation by its name, None if it is undefined.
        """
        raise NotImplementedError

    def observe(self, run: Run, record: Mapping[str, Any], replayed: bool) -> dict[str, Any]:
        """Let the judge see a record, and act unless it is ``replayed``; return what to add to it in the journal."""
        raise NotImplementedError

    def begin(self, run: Run) -> None:
        """Continue the journal of a resumed run, or begin a new one."""
        if not self.monitored():
            return
        self._journal = Journal(Path(run.work_dir, self.journal_name))
        for record in self._journal.rewind(run.iteration or -1):
            if record["iteration"] > self._last:
                self._last = record["iteration"]
                self.observe(run, record, replayed=True)

    def evaluated(self, run: Run, metrics: Mapping[str, Any], done: Mapping[str, int]) -> None:
        """Come after an evaluation; one that the judge knows already does not count again.

        Args:
            run: The training.
            metrics: The numbers of the evaluation by their names; undefined ones are None or left out.
            done: How much of the training is done: ``"iteration"``, and ``"epoch"`` where it has any.

        Raises:
            UserError: No evaluation can have a number that is monitored.
        """
        if self._journal is None or done["iteration"] <= self._last:
            return
        found = self.record(done["iteration"], lambda name: self._value(run, metrics, name))
        self._last = done["iteration"]
        record = {**done, **found}
        self._journal.append({**record, **self.observe(run, record, replayed=False)})

    def finish(self, run: Run) -> None:
        """Close the journal: evaluations after the training are not part of it."""
        self._journal = None

    def state_dict(self) -> dict[str, Any]:
        """Return the judge's state, and when it was fed."""
        return {"monitor": self.judge.state_dict(), "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.judge.load_state_dict(dict(state["monitor"]))
        self._last = state["last"]

    def knows(self, iteration: int) -> bool:
        """Return whether the evaluation after so many iterations has counted."""
        return self._last >= iteration

    def _value(self, run: Run, metrics: Mapping[str, Any], name: str) -> float | None:
        may_come = self.seen or name in metrics or name in run.metric_names().names
        value = value_of(metrics, name, self.title, may_come)
        if value is None:
            run.info(f"{self.title}: no value yet: {name} is undefined in this evaluation")
        return value


class MetricMonitor(EvaluationMonitor):
    """An :class:`EvaluationMonitor` of one number, which the rule of early stopping judges.

    Args:
        monitor: Name of the number, such as ``"val/loss"``.
        judge: The rule.
    """

    judge: EarlyStopping

    def __init__(self, monitor: str, judge: EarlyStopping) -> None:
        self.name = monitor
        self.judge = judge

    @property
    def seen(self) -> bool:
        """Whether an evaluation had the number."""
        return self.judge.evaluations > 0

    def monitored(self) -> dict[str, str]:
        """Return the name of the number."""
        return {"monitor": self.name}

    def record(self, iteration: int, value: Callable[[str], float | None]) -> dict[str, Any]:
        """Return the number."""
        return {"metric": self.name, "value": value(self.name)}

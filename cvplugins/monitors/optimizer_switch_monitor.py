"""Begin with one optimizer, finish with another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from .early_stopping import EarlyStopping
from .evaluation_monitor import MetricMonitor
from .metric_names import mode_of
from .optimizer_switch import switch_optimizer
from .run import Run

__all__ = ["OptimizerSwitchMonitor"]


class OptimizerSwitchMonitor(MetricMonitor):
    """Go on with another optimizer from a step on, or when a metric stops improving.

    Parameter groups with their proportions of rate and decay, the place in the schedule, the loss scale of mixed
    precision and hooks on the optimizer carry over; moments begin anew. See
    :func:`cvplugins.monitors.switch_optimizer`. A run resumes on either side of the switch. With ``plateau`` the
    evaluations lie in ``optimizer_switch.jsonl`` in the work dir.

    Args:
        optimizer: ``type`` and options of the new optimizer; its ``lr`` stands where the schedule's base rate stood.
        at: First iteration with the new optimizer, counted from 0; None with ``plateau``.
        plateau: Options of EarlyStoppingHook: ``monitor``, ``rule``, ``min_delta``, ``patience`` and ``warmup``;
            switches where that would stop.

    Attributes:
        due: Whether the next iteration has the new optimizer.
        switched: Whether the run has the new optimizer.

    Raises:
        ValueError: An option is missing or out of its range.
    """

    title = "optimizer switch"
    journal_name = "optimizer_switch.jsonl"

    def __init__(
        self, optimizer: Mapping[str, Any], at: int | None = None, plateau: Mapping[str, Any] | None = None
    ) -> None:
        if (at is None) == (plateau is None):
            raise ValueError("it switches either at= a step or at a plateau; set one of them")
        if at is not None and at < 1:
            raise ValueError(f"at is {at}; it must be at least 1, else let the run begin with that optimizer")
        if "type" not in optimizer or "lr" not in optimizer:
            raise ValueError(f"the new optimizer needs type and lr, such as SGD and 0.01, but it is {dict(optimizer)}")
        self.optimizer = dict(optimizer)
        self.at = at
        self.due = self.switched = False
        if plateau is not None:
            options = dict(plateau)
            name, rule = options.pop("monitor", None), options.pop("rule", None)
            if name is None:
                raise ValueError("plateau needs the name of a metric as its monitor, such as 'val/loss'")
            # Infinities are for others to judge; here they are no progress.
            super().__init__(name, EarlyStopping(mode=mode_of(name, rule), check_finite=False, **options))

    def monitored(self) -> dict[str, str]:
        """Return the name of the metric of the plateau, if there is one."""
        return {"plateau.monitor": self.name} if self.at is None else {}

    def observe(self, run: Run, record: Mapping[str, Any], replayed: bool) -> dict[str, Any]:
        """Look for the plateau until it is found."""
        report = self.judge.observe(record["value"], record["iteration"])
        if report and report.stop and not self.due:
            self.due = True
            run.info(f"a plateau of {self.name}: {report.stop}")
        return {"waited": report and report.waited, "switched": self.due}

    def is_time(self, step: int) -> bool:
        """Return whether to switch now.

        Args:
            step: What is about to begin, in the unit of ``at``.
        """
        if self.at is not None:
            self.due = step >= self.at
        return self.due and not self.switched

    def switch(
        self, run: Run, old: Optimizer, build: Callable[[list[dict[str, Any]]], Optimizer]
    ) -> tuple[Optimizer, float]:
        """Return the new optimizer, which the caller puts into the place of the old one, and the ratio of the rates.

        Args:
            run: The training.
            old: The optimizer so far.
            build: Makes the new one from parameter groups.
        """
        new, ratio = switch_optimizer(old, build)
        self.due = self.switched = True
        names = f"{type(new).__name__} follows {type(old).__name__}"
        run.info(f"iteration {run.iteration}: {names}, with {ratio:g} times the learning rate")
        return new, ratio

    def state_dict(self) -> dict[str, Any]:
        """Return which optimizer the checkpoint's is, and what is known of the plateau."""
        plateau = super().state_dict() if self.at is None else {}
        return {**plateau, "due": self.due, "switched": self.switched}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what is known of the plateau; after a switch :meth:`is_time` says that it has to be made again."""
        if self.at is None and "monitor" in state:
            super().load_state_dict(state)
        self.due = state["due"]

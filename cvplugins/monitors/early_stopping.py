"""Early stopping: when has a loss or metric stopped getting better?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cvplugins.distributed import gather_objects

__all__ = ["EarlyStopping", "StoppingReport"]


@dataclass(frozen=True)
class StoppingReport:
    """What one evaluation means for the training.

    Attributes:
        iteration: When it was made.
        value: The value that counts: the worst of all ranks.
        is_best: Whether it is better than all before it, by however little: its weights are worth keeping.
        waited: Evaluations since the last one that was better by more than ``min_delta``.
        stop: Why to stop, or None to go on.
    """

    iteration: int
    value: float
    is_best: bool
    waited: int
    stop: str | None


class EarlyStopping:
    """Say after each evaluation whether to go on.

    The best value and the value that patience is measured from are two: small steps that add up to more than
    ``min_delta`` count as progress, and the best weights are the best ones even if they are so by less than it.

    Args:
        mode: ``"min"`` for losses, ``"max"`` for scores.
        min_delta: An evaluation is progress if it is better than the last progress by more than this; in units of
            the value, at least 0.
        patience: Stop after so many evaluations in a row without progress, at least 1.
        warmup: The first so many evaluations do not count, though they have to be finite.
        divergence: Stop at once when a value is worse than the best by more than this, in units of the value.
        goal: Stop at once when a value is as good as this.
        check_finite: Stop at once when a value is NaN or infinite. False counts it as no progress.

    Attributes:
        best: The best value; None before the first that counts.
        best_iteration: When it was found.
        waited: As in :class:`StoppingReport`.
        evaluations: How many had a value.

    Raises:
        ValueError: An option is none of these.

    Example:
        >>> stopping = EarlyStopping(mode="max", min_delta=0.01, patience=2)
        >>> [stopping.observe(value, 100 * i).stop for i, value in enumerate([0.50, 0.60, 0.605, 0.595])]
        [None, None, None, 'no progress in 2 evaluations: 0.595 after a best of 0.605 at iteration 200']
    """

    def __init__(
        self,
        *,
        mode: str = "min",
        min_delta: float = 0.0,
        patience: int = 5,
        warmup: int = 0,
        divergence: float | None = None,
        goal: float | None = None,
        check_finite: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}; use 'min' for losses, 'max' for scores")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta is {min_delta}; it must be at least 0, whatever the mode")
        if patience < 1:
            raise ValueError(f"patience is {patience}; it must be at least 1 evaluation")
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}; it must be at least 0 evaluations")
        if divergence is not None and not divergence > 0:
            raise ValueError(f"divergence is {divergence}; it must be above 0, or None to go on whatever comes")
        self.mode = mode
        self.min_delta = min_delta
        self.patience = patience
        self.warmup = warmup
        self.divergence = divergence
        self.goal = goal
        self.check_finite = check_finite
        self.best: float | None = None
        self.best_iteration: int | None = None
        self.waited = 0
        self._progress: float | None = None  # the value that patience is measured from
        self.evaluations = 0

    def observe(self, value: float | None, iteration: int) -> StoppingReport | None:
        """Judge an evaluation; every rank has to call this, and all get the same answer.

        Args:
            value: The loss or metric; None on ranks that do not have it.
            iteration: The current step.

        Returns:
            A report; None if no rank has a value.
        """
        values = [float(each) for each in gather_objects(value) if each is not None]
        if not values:
            return None
        value = next((each for each in values if not math.isfinite(each)), None)
        if value is None:
            value = max(values) if self.mode == "min" else min(values)
        self.evaluations += 1
        is_best = False
        if self.evaluations > self.warmup:
            is_best = self._count(value, iteration)
        return StoppingReport(iteration, value, is_best, self.waited, self._reason(value))

    def _count(self, value: float, iteration: int) -> bool:
        """Update best value and patience; return whether this one is the best."""
        is_best = math.isfinite(value) and (self.best is None or self._gain(value, self.best) > 0)
        if is_best:
            self.best, self.best_iteration = value, iteration
        progressed = self._progress is None or self._gain(value, self._progress) > self.min_delta
        if math.isfinite(value) and progressed:
            self._progress, self.waited = value, 0
        else:
            self.waited += 1
        return is_best

    def _gain(self, value: float, reference: float) -> float:
        return reference - value if self.mode == "min" else value - reference

    def _reason(self, value: float) -> str | None:
        best = "" if self.best is None else f" after a best of {self.best:.6g} at iteration {self.best_iteration}"
        if self.check_finite and not math.isfinite(value):
            return f"the value is {value}{best}"
        if self.evaluations <= self.warmup:
            return None
        if self.goal is not None and self._gain(value, self.goal) >= 0:
            return f"{value:.6g} reaches the goal of {self.goal:.6g}"
        if self.divergence is not None and self.best is not None and self._gain(self.best, value) > self.divergence:
            return f"it diverges: {value:.6g} is worse by more than {self.divergence:.6g}{best}"
        if self.waited >= self.patience:
            return f"no progress in {self.waited} evaluations: {value:.6g}{best}"
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {
            "best": self.best,
            "best_iteration": self.best_iteration,
            "progress": self._progress,
            "waited": self.waited,
            "evaluations": self.evaluations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.best, self.best_iteration = state["best"], state["best_iteration"]
        self._progress, self.waited, self.evaluations = state["progress"], state["waited"], state["evaluations"]

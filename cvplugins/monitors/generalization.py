"""Over- and underfitting: what the losses of training and validation say, side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cvplugins.distributed import gather_objects

from .trend import falls, noise

__all__ = ["VERDICTS", "Generalization", "GeneralizationPoint", "GeneralizationReport"]

VERDICTS = (
    "too early", "learning", "converged", "underfitting", "overfitting", "overconfident", "not finite"
)  # fmt: skip
SMOOTHING = 5  # evaluations whose median stands for "now"
FIRST = 10  # iterations whose mean loss stands for "at the start"


@dataclass(frozen=True)
class GeneralizationPoint:
    """One evaluation.

    Attributes:
        iteration: When it was made.
        train_loss: Mean over the iterations since the last one, of all ranks; NaN without any.
        val_loss: On the validation set.
        train_metric: As ``train_loss``, of a metric of the training batches.
        val_metric: On the validation set.
    """

    iteration: int
    train_loss: float
    val_loss: float | None = None
    train_metric: float | None = None
    val_metric: float | None = None


@dataclass(frozen=True)
class GeneralizationReport:
    """What the evaluations so far say.

    Attributes:
        point: The last one.
        gap: Validation loss minus training loss; None without one of them. With augmentation and dropout in
            training only, it can be negative in health: its growth counts, not its sign.
        verdict: One of :data:`VERDICTS`.
        evidence: The numbers behind it, as a sentence.
        changed: Whether the verdict is another one than at the last evaluation.
    """

    point: GeneralizationPoint
    gap: float | None
    verdict: str
    evidence: str
    changed: bool


class Generalization:
    """Compare training and validation after each evaluation.

    Verdicts, the first that holds:

    - ``not finite``: a loss is NaN or infinite.
    - ``too early``: fewer than ``window`` evaluations.
    - ``overfitting``: the validation loss, or the metric, now (median of 5) is worse than its best (smallest median
      of 5) by more than ``min_change`` of that and ``noise_factor`` standard deviations of its noise, while the
      training loss fell by more than ``min_change`` and its noise.
    - ``overconfident``: the same of the loss, but the metric is better than it was then by more than its noise: the
      model is surer of its mistakes and makes no more of them.
    - ``learning``: the training loss or the validation falls over the last ``window`` evaluations: Mann-Kendall
      test at 1 %, and from the first half to the second by more than ``min_change``.
    - ``underfitting``: neither falls, and the training loss is above ``fitted_loss``.
    - ``converged``: else.

    Args:
        window: Evaluations that a trend is taken over, at least 6.
        min_change: Least change that counts, as a share of the value.
        noise_factor: Standard deviations of the noise that a change has to exceed too.
        fitted_loss: Training loss of a model that has fitted its data; None is half the mean loss of the first 10
            iterations. Set it where a loss has a large part that nobody can learn.
        metric_mode: ``"max"`` if more of the metric is better, else ``"min"``.

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> monitor = Generalization(window=6)
        >>> for n, val in enumerate([1.0, 0.8, 0.6, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]):
        ...     report = monitor.observe(GeneralizationPoint(n, train_loss=0.8**n, val_loss=val))
        >>> report.verdict
        'overfitting'
    """

    def __init__(
        self,
        *,
        window: int = 8,
        min_change: float = 0.02,
        noise_factor: float = 4.0,
        fitted_loss: float | None = None,
        metric_mode: str = "max",
    ) -> None:
        if window < 6:
            raise ValueError(f"window is {window}; a trend needs at least 6 evaluations")
        if not (min_change >= 0 and noise_factor >= 0):
            raise ValueError(f"min_change and noise_factor must be at least 0, not {min_change} and {noise_factor}")
        if metric_mode not in ("min", "max"):
            raise ValueError(f"metric_mode is {metric_mode!r}; use 'max' if more of the metric is better, else 'min'")
        self.window = window
        self.min_change = min_change
        self.noise_factor = noise_factor
        self.fitted_loss = fitted_loss
        self.metric_mode = metric_mode
        self.reports: list[GeneralizationReport] = []
        self._loss: Tensor | float = 0.0  # sums since the last evaluation
        self._metric: Tensor | float = 0.0
        self._iterations: Tensor | int = 0
        self._metrics: Tensor | int = 0
        self._start: list[Tensor | float] = []  # losses of the first iterations

    def add(self, loss: Tensor | float, metric: Tensor | float | None = None) -> None:
        """Count an iteration of the training; nothing is read from the device.

        A loss that is not finite does not count: the iteration may have been skipped, and if not, the next ones show.
        """
        value, counts = _finite(loss)
        if len(self._start) < FIRST:
            self._start.append(loss.detach() if isinstance(loss, Tensor) else loss)
        self._loss, self._iterations = self._loss + value, self._iterations + counts
        if metric is not None:
            value, counts = _finite(metric)
            self._metric, self._metrics = self._metric + value, self._metrics + counts

    def point(
        self, iteration: int, val_loss: float | None = None, val_metric: float | None = None
    ) -> GeneralizationPoint:
        """Join an evaluation with the training since the last one; every rank has to call this."""
        sums = self._sums()
        loss, iterations, metric, metrics = (sum(column) for column in zip(*gather_objects(sums), strict=True))
        return GeneralizationPoint(
            iteration,
            loss / iterations if iterations else math.nan,
            _first(gather_objects(val_loss)),
            metric / metrics if metrics else None,
            _first(gather_objects(val_metric)),
        )

    def observe(self, point: GeneralizationPoint) -> GeneralizationReport:
        """Judge after an evaluation."""
        self._clear()
        verdict, evidence = self._judge([*(report.point for report in self.reports), point])
        changed = not self.reports or self.reports[-1].verdict != verdict
        gap = None if point.val_loss is None else point.val_loss - point.train_loss
        report = GeneralizationReport(point, gap, verdict, evidence, changed)
        self.reports.append(report)
        return report

    def _judge(self, points: list[GeneralizationPoint]) -> tuple[str, str]:
        last = points[-1]
        for name, value in asdict(last).items():
            if value is not None and not math.isfinite(value):
                return "not finite", f"{name} is {value}"
        points = [point for point in points if _is_finite(point)]
        if len(points) < self.window:
            return "too early", f"{len(points)} of the {self.window} evaluations that a trend needs"
        return self._worsening(points) or self._course(points)

    def _worsening(self, points: list[GeneralizationPoint]) -> tuple[str, str] | None:
        """Return a verdict of overfitting, or None."""
        for name, sign in (("val_loss", 1.0), ("val_metric", 1.0 if self.metric_mode == "min" else -1.0)):
            kept = [point for point in points if getattr(point, name) is not None]
            if len(kept) < self.window:
                continue
            values = [sign * getattr(point, name) for point in kept]
            best, now, spread = _best(values), _median(values, len(values) - 1), noise(values)
            low = _median(values, best)
            train = [point.train_loss for point in kept]
            then, since = _median(train, best), _median(train, len(train) - 1)
            rose = now - low > self.min_change * abs(low) + self.noise_factor * spread
            if not rose or then - since <= self.min_change * abs(then) + noise(train):
                continue
            evidence = (
                f"{name} {sign * now:.4g} is worse than its best of {sign * low:.4g} at iteration "
                f"{kept[best].iteration} (noise {spread:.2g}), while train_loss fell from {then:.4g} to {since:.4g}"
            )
            gain = self._metric_gain(kept, best) if name == "val_loss" else None
            return ("overconfident", f"{evidence}; {gain}") if gain else ("overfitting", evidence)
        return None

    def _metric_gain(self, points: list[GeneralizationPoint], best: int) -> str | None:
        """Return how the metric got better since then, if it did so by more than its noise."""
        if any(point.val_metric is None for point in points):
            return None
        values = [float(point.val_metric) for point in points if point.val_metric is not None]
        then, now = _median(values, best), _median(values, len(values) - 1)
        gain = now - then if self.metric_mode == "max" else then - now
        return f"val_metric went from {then:.4g} to {now:.4g}" if gain > noise(values) else None

    def _course(self, points: list[GeneralizationPoint]) -> tuple[str, str]:
        """Tell learning from what has come to rest."""
        recent = points[-self.window :]
        train = [point.train_loss for point in recent]
        series: dict[str, list[float]] = {"train_loss": train}
        for name, sign in (("val_loss", 1.0), ("val_metric", 1.0 if self.metric_mode == "min" else -1.0)):
            series[name] = [sign * getattr(point, name) for point in recent if getattr(point, name) is not None]
        falling = [name for name, values in series.items() if falls(values, min_change=self.min_change)]
        if falling:
            return "learning", f"{' and '.join(falling)} got better over the last {self.window} evaluations"
        level, fitted = statistics.median(train), self._fitted()
        still = f"nothing got better over the last {self.window} evaluations, and train_loss {level:.4g}"
        if level > fitted:
            return "underfitting", f"{still} is above {fitted:.4g}" + (
                "" if self.fitted_loss else ", half of the start's"
            )
        return "converged", f"{still} is below {fitted:.4g}"

    def _fitted(self) -> float:
        if self.fitted_loss is not None:
            return self.fitted_loss
        start = [loss for loss in map(float, self._start) if math.isfinite(loss)]
        # Without a start (the monitor saw no iteration) nothing is known, and no alarm is raised.
        return statistics.fmean(start) / 2 if start else math.inf

    def _sums(self) -> tuple[float, int, float, int]:
        return float(self._loss), int(self._iterations), float(self._metric), int(self._metrics)

    def _clear(self) -> None:
        self._loss = self._metric = 0.0
        self._iterations = self._metrics = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {
            "reports": [asdict(report) for report in self.reports],
            "start": [float(loss) for loss in self._start],
            "sums": list(self._sums()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.reports = [
            GeneralizationReport(**{**report, "point": GeneralizationPoint(**report["point"])})
            for report in state["reports"]
        ]
        self._start = list(state["start"])
        self._loss, self._iterations, self._metric, self._metrics = state["sums"]


def _finite(value: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return the value, or 0, and whether it is finite."""
    value = torch.as_tensor(value).detach()
    return torch.where(value.isfinite(), value, 0), value.isfinite()


def _first(values: list[float | None]) -> float | None:
    return next((float(value) for value in values if value is not None), None)


def _is_finite(point: GeneralizationPoint) -> bool:
    return all(value is None or math.isfinite(value) for value in asdict(point).values())


def _median(values: Sequence[float], end: int) -> float:
    """Return the median of the values that end at index ``end``."""
    return statistics.median(values[max(end - SMOOTHING + 1, 0) : end + 1])


def _best(values: Sequence[float]) -> int:
    """Return the index at which the median is smallest."""
    return min(range(min(SMOOTHING, len(values)) - 1, len(values)), key=lambda end: _median(values, end))

"""Training and validation side by side, and what they say: in the log, a journal and a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cvplugins.distributed import rank
from cvplugins.reporting import draw_generalization_figure

from .evaluation_monitor import EvaluationMonitor
from .generalization import Generalization, GeneralizationPoint
from .metric_names import mode_of
from .run import Run

__all__ = ["GeneralizationMonitor"]

BAD = ("overfitting", "overconfident", "underfitting", "not finite")


class GeneralizationMonitor(EvaluationMonitor):
    """Say whether a model over- or underfits, with the evidence; see :class:`cvplugins.monitors.Generalization`.

    The training loss of an interval is the mean of its iterations, over all processes. Each evaluation goes to the
    backends that draw curves (``generalization/train_loss``, ``.../gap`` ...) and to ``generalization.jsonl`` in the
    work dir; a new verdict to the log, as a warning if it is bad; ``generalization.png`` is drawn with each new
    verdict and at the end.

    Args:
        val_loss: Name of the validation loss among the metrics, such as that of ``ValidationLoss``; None judges by
            ``val_metric`` alone.
        val_metric: Name of a metric of the validation, such as ``"bbox/AP50"``; None for none.
        train_loss: Name of a loss of a training step.
        train_metric: Name of a metric of a training step; None for none.
        metric_rule: Whether ``"less"`` or ``"greater"`` of the metric is better; None goes by its name.
        window: Validations that a trend is taken over, at least 6.
        min_change: Least change that counts, as a share of the value.
        fitted_loss: Training loss that shows that the data is fitted; None is half of what it was at the start.
        figure: Whether to draw the figure.

    Raises:
        ValueError: An option is out of its range.
    """

    title = "generalization"
    journal_name = "generalization.jsonl"

    def __init__(
        self,
        val_loss: str | None = "val/loss",
        val_metric: str | None = None,
        train_loss: str = "loss",
        train_metric: str | None = None,
        metric_rule: str | None = None,
        window: int = 8,
        min_change: float = 0.02,
        fitted_loss: float | None = None,
        figure: bool = True,
    ) -> None:
        if val_loss is None and val_metric is None:
            raise ValueError("the name of val_loss or of val_metric is needed; both are None")
        self.val_loss, self.val_metric = val_loss, val_metric
        self.train_loss, self.train_metric = train_loss, train_metric
        self.figure = figure
        self.judge = Generalization(
            window=window,
            min_change=min_change,
            fitted_loss=fitted_loss,
            metric_mode=mode_of(val_metric, metric_rule) if val_metric else "max",
        )

    @property
    def seen(self) -> bool:
        """Whether there was a validation."""
        return bool(self.judge.reports)

    def monitored(self) -> dict[str, str]:
        """Return the names of the loss and of the metric of the validation, by the options that give them."""
        given = {"val_loss": self.val_loss, "val_metric": self.val_metric}
        return {option: name for option, name in given.items() if name is not None}

    def missing(self, known: Mapping[str, Any]) -> str:
        """Return what to say of a training step that gives only ``known`` names."""
        asked = [name for name in (self.train_loss, self.train_metric) if name and name not in known]
        return f"a training step gives no {asked[0]!r}; use one of {', '.join(known)}"

    def record(self, iteration: int, value: Callable[[str], float | None]) -> dict[str, Any]:
        """Return a validation, and the training since the last one, as plain numbers; all ranks have to call this.

        Args:
            iteration: Of the validation.
            value: Returns a number of the validation by its name, None if it is undefined.
        """
        names = (self.val_loss, self.val_metric)
        return asdict(self.judge.point(iteration, *(None if name is None else value(name) for name in names)))

    def observe(self, run: Run, record: Mapping[str, Any], replayed: bool) -> dict[str, Any]:
        """Judge a record, tell the backends and, of a new verdict, the log; nobody if it is ``replayed``.

        Returns:
            What to add to the record in the journal.
        """
        names = GeneralizationPoint.__dataclass_fields__
        report = self.judge.observe(GeneralizationPoint(**{name: record[name] for name in names}))
        if replayed:
            return {}
        scalars = {**asdict(report.point), "gap": report.gap}
        del scalars["iteration"]
        run.plot({f"generalization/{name}": value for name, value in scalars.items() if value is not None})
        if report.changed:
            tell = run.warn if report.verdict in BAD else run.info
            tell(f"generalization after iteration {record['iteration']}: {report.verdict}: {report.evidence}")
            self._draw(run)
        return {"gap": report.gap, "verdict": report.verdict, "evidence": report.evidence}

    def finish(self, run: Run) -> None:
        """Draw the whole course, and say what came of it."""
        super().finish(run)
        if self.seen:
            report = self.judge.reports[-1]
            run.info(f"generalization at the end: {report.verdict}: {report.evidence}")
            self._draw(run)

    def _draw(self, run: Run) -> None:
        if self.figure and rank() == 0:
            draw_generalization_figure(self.judge.reports, Path(run.work_dir, "generalization.png"))

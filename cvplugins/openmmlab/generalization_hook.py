"""GeneralizationHook: training and validation side by side, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from cvplugins.monitors import Generalization, GeneralizationPoint, mode_of
from cvplugins.registry import HOOKS
from cvplugins.reporting import draw_generalization_figure

from .evaluation_hook import EvaluationHook

__all__ = ["GeneralizationHook"]


@HOOKS.register_module()
class GeneralizationHook(EvaluationHook):
    """Say whether a model over- or underfits, with the evidence; see :class:`cvplugins.monitors.Generalization`.

    The training loss of an interval is the mean of its iterations, over all processes. Each evaluation goes to the
    visualizer (``generalization/train_loss``, ``.../gap`` ...) and to ``generalization.jsonl`` in the work dir; a
    new verdict to the log, as a warning if it is bad; ``generalization.png`` is drawn with each new verdict and at
    the end.

    Args:
        val_loss: Name of the validation loss among the metrics, such as that of ``cvplugins.ValidationLoss``; None
            judges by ``val_metric`` alone.
        val_metric: Name of a metric of the validation, such as ``"voc/AP50"``; None for none.
        train_loss: Name of the loss among what a training step returns.
        train_metric: Name of a metric there, such as mmdet's ``"acc"``; None for none.
        metric_rule: Whether ``"less"`` or ``"greater"`` of the metric is better; None goes by its name.
        window: Validations that a trend is taken over, at least 6.
        min_change: Least change that counts, as a share of the value.
        fitted_loss: Training loss that shows that the data is fitted; None is half of what it was at the start.
        figure: Whether to draw the figure.
    """

    journal_name = "generalization.jsonl"
    checkpoint_key = "cvplugins_generalization"
    bad = ("overfitting", "overconfident", "underfitting", "not finite")

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
            raise ValueError("GeneralizationHook needs the name of val_loss or of val_metric; both are None")
        self.val_loss, self.val_metric = val_loss, val_metric
        self.train_loss, self.train_metric = train_loss, train_metric
        self.figure = figure
        self.monitor = Generalization(
            window=window,
            min_change=min_change,
            fitted_loss=fitted_loss,
            metric_mode=mode_of(val_metric, metric_rule) if val_metric else "max",
        )

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Count the iteration."""
        missing = [name for name in (self.train_loss, self.train_metric) if name and name not in outputs]
        if missing:
            raise ValueError(
                f"GeneralizationHook: a training step returns no '{missing[0]}'; use one of {', '.join(outputs)}"
            )
        self.monitor.add(outputs[self.train_loss], outputs[self.train_metric] if self.train_metric else None)

    def monitored(self) -> dict[str, str]:
        """Return the names of the loss and of the metric of the validation."""
        given = {"val_loss": self.val_loss, "val_metric": self.val_metric}
        return {option: name for option, name in given.items() if name is not None}

    def record(self, runner, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the validation, and the training since the last one."""
        seen = bool(self.monitor.reports)
        names = (self.val_loss, self.val_metric)
        values = [self.value(runner, metrics, name, seen) if name else None for name in names]
        return asdict(self.monitor.point(runner.iter, *values))

    def observe(self, runner, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Judge, tell the visualizer and, of a new verdict, the log."""
        names = GeneralizationPoint.__dataclass_fields__
        report = self.monitor.observe(GeneralizationPoint(**{name: record[name] for name in names}))
        if replayed:
            return {}
        scalars = {**asdict(report.point), "gap": report.gap}
        del scalars["iteration"]
        scalars = {f"generalization/{name}": value for name, value in scalars.items() if value is not None}
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        if report.changed:
            tell = runner.logger.warning if report.verdict in self.bad else runner.logger.info
            tell(f"generalization at iteration {runner.iter}: {report.verdict}: {report.evidence}")
            self._draw(runner)
        return {"gap": report.gap, "verdict": report.verdict, "evidence": report.evidence}

    def after_train(self, runner) -> None:
        """Draw the whole course, and say what came of it."""
        super().after_train(runner)
        if self.monitor.reports:
            report = self.monitor.reports[-1]
            runner.logger.info(f"generalization at the end: {report.verdict}: {report.evidence}")
            self._draw(runner)

    def _draw(self, runner) -> None:
        if self.figure and is_main_process():
            draw_generalization_figure(self.monitor.reports, Path(runner.work_dir, "generalization.png"))

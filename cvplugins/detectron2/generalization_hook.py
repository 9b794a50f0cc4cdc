"""Hook: training and evaluation side by side, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvplugins.distributed import rank
from cvplugins.errors import UserError
from cvplugins.monitors import Generalization, GeneralizationPoint, mode_of
from cvplugins.reporting import draw_generalization_figure

from .evaluation_hook import EvaluationHook
from .plugin_hook import logger

__all__ = ["GeneralizationHook"]


class GeneralizationHook(EvaluationHook):
    """Say whether a model over- or underfits, with the evidence; see :class:`cvplugins.monitors.Generalization`.

    The training loss of an interval is the mean of its iterations, over all processes. Each evaluation goes to the
    storage (``generalization/train_loss``, ``.../gap`` ...) and to ``generalization.jsonl`` in the output folder; a
    new verdict to the log, as a warning if it is bad; ``generalization.png`` is drawn with each new verdict and at
    the end.

    Args:
        val_loss: Name of the validation loss among the results, such as that of ValidationLoss; None judges by
            ``val_metric`` alone.
        val_metric: Name of a metric of the evaluation, such as ``bbox/AP50``; None for none.
        train_loss: Name of one of the model's losses; ``"loss"`` is their sum.
        train_metric: Name of a number that the model puts into the storage in training, such as
            ``fast_rcnn/cls_accuracy``; None for none.
        metric_rule: Whether ``"less"`` or ``"greater"`` of the metric is better; None goes by its name.
        window: Evaluations that a trend is taken over, at least 6.
        min_change: Least change that counts, as a share of the value.
        fitted_loss: Training loss that shows that the data is fitted; None is half of what it was at the start.
        figure: Whether to draw the figure.
        output_dir: Where the files are written.

    Raises:
        ValueError: An option is out of its range.
    """

    journal_name = "generalization.jsonl"
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
        output_dir: str = ".",
    ) -> None:
        super().__init__(output_dir)
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
        self._losses: list[Tensor] = []  # several where a trainer accumulates gradients

    def begin(self) -> None:
        """Watch the losses: Detectron2 keeps them on the first rank only."""
        super().begin()
        # Before NonFiniteGuardHook puts 0 in the place of what is not finite
        self._handles += (self.model.register_forward_hook(self._keep_loss, prepend=True),)

    def after_step(self) -> None:
        """Count the iteration."""
        if not self._losses:
            return
        metric = None
        if self.train_metric is not None:
            latest = self.trainer.storage.latest()
            metric = latest[self.train_metric][0] if self.train_metric in latest else self._missing(latest)
        self.monitor.add(torch.stack(self._losses).mean(), metric)
        self._losses = []

    def monitored(self) -> dict[str, str]:
        """Return the names of the loss and of the metric of the evaluation."""
        given = {"val_loss": self.val_loss, "val_metric": self.val_metric}
        return {option: name for option, name in given.items() if name is not None}

    def record(self, scalars: Mapping[str, float]) -> dict[str, Any]:
        """Return the evaluation, and the training since the last one."""
        seen = bool(self.monitor.reports)
        names = (self.val_loss, self.val_metric)
        values = [self.value(scalars, name, seen) if name else None for name in names]
        return asdict(self.monitor.point(min(self.trainer.iter + 1, self.trainer.max_iter), *values))

    def observe(self, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Judge, tell the storage and, of a new verdict, the log."""
        names = GeneralizationPoint.__dataclass_fields__
        report = self.monitor.observe(GeneralizationPoint(**{name: record[name] for name in names}))
        if replayed:
            return {}
        scalars = {**asdict(report.point), "gap": report.gap}
        del scalars["iteration"]
        scalars = {f"generalization/{name}": value for name, value in scalars.items() if value is not None}
        self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)
        if report.changed:
            tell = logger.warning if report.verdict in self.bad else logger.info
            tell("generalization after iteration %d: %s: %s", record["iteration"], report.verdict, report.evidence)
            self._draw()
        return {"gap": report.gap, "verdict": report.verdict, "evidence": report.evidence}

    def finish(self) -> None:
        """Draw the whole course, and say what came of it."""
        super().finish()
        if self.monitor.reports:
            report = self.monitor.reports[-1]
            logger.info("generalization at the end: %s: %s", report.verdict, report.evidence)
            self._draw()

    def _keep_loss(self, model: torch.nn.Module, args: Any, losses: Any) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        losses = losses if isinstance(losses, Mapping) else {"loss": losses}
        if self.train_loss == "loss":
            loss = sum(losses.values())
        else:
            loss = losses[self.train_loss] if self.train_loss in losses else self._missing(losses)
        self._losses.append(loss.detach())

    def _missing(self, known: Mapping[str, Any]) -> Any:
        name = self.train_metric if self.train_loss in ("loss", *known) else self.train_loss
        raise UserError(f"GeneralizationHook: a training step gives no {name!r}; use one of {', '.join(known)}")

    def _draw(self) -> None:
        if self.figure and rank() == 0:
            draw_generalization_figure(self.monitor.reports, Path(self.output_dir, "generalization.png"))

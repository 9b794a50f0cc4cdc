"""Hook: stop when evaluations no longer get better, and put the best weights back."""

from __future__ import annotations

from typing import Any

from cvplugins.monitors import EarlyStopping, StoppingReport, mode_of

from .best_checkpoint_hook import BestCheckpointHook
from .plugin_hook import logger

__all__ = ["EarlyStoppingHook", "TrainingStopped"]


class TrainingStopped(SystemExit):
    """Raised within ``trainer.train()``, which has no other end: a training has stopped early, and well.

    A program that does not catch it ends with exit code 0, after every hook's ``after_train``. To go on behind the
    training::

        with contextlib.suppress(TrainingStopped):
            trainer.train()

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(0)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class EarlyStoppingHook(BestCheckpointHook):
    """Stop a training whose loss or metric no longer improves; see :class:`cvplugins.monitors.EarlyStopping`.

    It raises :class:`TrainingStopped` before the iteration after the evaluation, when that is written and logged. The
    best weights (with EMAHook the averaged ones, which were evaluated) lie in ``best_weights.pth``, which
    ``MODEL.WEIGHTS`` takes; at the end of the training they are in the model. ``early_stopping.jsonl`` has the
    evaluations. A stopped run that is resumed stops again, unless it is given more patience.

    Args:
        monitor: Name of a metric, such as ``bbox/AP50`` or ``val/loss`` (of ValidationLoss).
        rule: ``"less"`` or ``"greater"`` is better; None goes by the name.
        min_delta: Least gain that counts as progress, in units of the metric.
        patience: Stop after so many evaluations without progress.
        warmup: The first so many evaluations do not count.
        divergence: Stop at once when worse than the best by more than this, in units of the metric.
        stopping_threshold: Stop at once when as good as this.
        check_finite: Stop at once at NaN or infinity.
        restore_best: False keeps no weights.
        output_dir: Where the files are written.

    Raises:
        ValueError: An option is out of its range.
    """

    journal_name = "early_stopping.jsonl"
    file_name = "best_weights.pth"

    def __init__(
        self,
        monitor: str,
        rule: str | None = None,
        min_delta: float = 0.0,
        patience: int = 5,
        warmup: int = 0,
        divergence: float | None = None,
        stopping_threshold: float | None = None,
        check_finite: bool = True,
        restore_best: bool = True,
        output_dir: str = ".",
    ) -> None:
        super().__init__(monitor, rule, output_dir)
        self.restore_best = restore_best
        self._reason: str | None = None
        self.monitor = EarlyStopping(
            mode=mode_of(monitor, rule),
            min_delta=min_delta,
            patience=patience,
            warmup=warmup,
            divergence=divergence,
            goal=stopping_threshold,
            check_finite=check_finite,
        )

    def begin(self) -> None:
        """Continue where a run was killed, or stopped."""
        super().begin()
        if self.monitor.waited >= self.monitor.patience and self._reason is None:
            self._reason = f"no progress in {self.monitor.waited} evaluations before it was resumed"

    def before_step(self) -> None:
        """Stop here, where all that belongs to the last iteration is done."""
        super().before_step()
        if self._reason is not None:
            logger.info("early stopping by %s: %s", self.name, self._reason)
            self.stops = True
            raise TrainingStopped(self._reason)

    def keep(self, report: StoppingReport) -> None:
        """Write the weights, if they are to be restored."""
        if self.restore_best:
            super().keep(report)

    def judge(self, report: StoppingReport) -> dict[str, Any]:
        """Remember to stop."""
        self._reason = report.stop
        return {"waited": report.waited, "stop": report.stop}

    def finish(self) -> None:
        """Put the best weights into the model."""
        super().finish()
        if not self.restore_best or self.monitor.best is None:
            return
        try:
            meta = self._best.restore(self.model)
        except RuntimeError as error:
            logger.warning("%s; the model has the weights of the last iteration", error)
            return
        logger.info(
            "the model has the weights after iteration %d again, with the best %s of %.6g; they lie in %s",
            *(meta["iteration"], self.name, meta[self.name], self._best.path),
        )

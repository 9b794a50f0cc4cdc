"""Stop when evaluations no longer get better, and put the best weights back."""

from __future__ import annotations

from typing import Any

from .best_checkpoint_monitor import BestCheckpointMonitor
from .early_stopping import EarlyStopping, StoppingReport
from .metric_names import mode_of
from .run import Run

__all__ = ["EarlyStoppingMonitor"]


class EarlyStoppingMonitor(BestCheckpointMonitor):
    """Stop a training whose loss or metric no longer improves; see :class:`cvplugins.monitors.EarlyStopping`.

    The best weights (where an average of the weights was evaluated, the averaged ones) lie in ``best_weights.pth`` in
    the work dir, the evaluations in ``early_stopping.jsonl``. At the end of the training the best weights are in the
    model, and in an average that tests take. A stopped run that is resumed stops again, unless it is given more
    patience.

    Args:
        monitor: Name of a metric, such as ``"val/loss"`` (of ``ValidationLoss``) or ``"bbox/AP50"``.
        rule: ``"less"`` or ``"greater"`` is better; None goes by the name.
        min_delta: Least gain that counts as progress, in units of the metric. Small gains add up.
        patience: Stop after so many evaluations without progress.
        warmup: The first so many evaluations do not count.
        divergence: Stop at once when worse than the best by more than this, in units of the metric.
        stopping_threshold: Stop at once when as good as this.
        check_finite: Stop at once at NaN or infinity.
        restore_best: False keeps no weights.

    Raises:
        ValueError: An option is out of its range.
    """

    title = "early stopping"
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
    ) -> None:
        super().__init__(monitor, rule)
        self.judge = EarlyStopping(
            mode=mode_of(monitor, rule),
            min_delta=min_delta,
            patience=patience,
            warmup=warmup,
            divergence=divergence,
            goal=stopping_threshold,
            check_finite=check_finite,
        )
        self.keeps = restore_best
        self._reason: str | None = None

    def begin(self, run: Run) -> None:
        """Continue where a run was killed, or stopped."""
        super().begin(run)
        waited = self.judge.waited
        if self._reason is None and waited >= self.judge.patience:
            self._reason = f"no progress in {waited} evaluations before it was resumed"
        self._stop(run)

    def act(self, run: Run, report: StoppingReport, replayed: bool) -> dict[str, Any]:
        """Stop if it is time; of replayed evaluations the last one decides."""
        self._reason = report.stop
        if not replayed:
            self._stop(run)
        return {"waited": report.waited, "stop": report.stop}

    def finish(self, run: Run) -> None:
        """Put the best weights into the model."""
        super().finish(run)
        if not self.keeps or self.judge.best is None:
            return
        try:
            meta = self.best.restore(*run.tested_models)
        except RuntimeError as error:
            run.warn(f"{error}; the model has the weights of the last iteration")
            return
        run.info(
            f"the model has the weights after iteration {meta['iteration']} again, with the best {self.name} "
            f"of {meta[self.name]:.6g}; they lie in {self.best.path}"
        )

    def _stop(self, run: Run) -> None:
        if self._reason is not None:
            run.info(f"early stopping by {self.name}: {self._reason}")
            run.stop(self._reason)

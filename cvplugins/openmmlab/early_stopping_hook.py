"""EarlyStoppingHook: stop when validations no longer get better, and put the best weights back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper

from cvplugins.monitors import BestWeights, EarlyStopping, mode_of
from cvplugins.registry import HOOKS

from .evaluation_hook import EvaluationHook

__all__ = ["EarlyStoppingHook"]


@HOOKS.register_module()
class EarlyStoppingHook(EvaluationHook):
    """Stop a training whose loss or metric no longer improves; see :class:`cvplugins.monitors.EarlyStopping`.

    The options of mmengine's hook mean what they say here: ``min_delta`` is 0 unless set (there 0.1, while its
    docstring says 0.01, so that steady gains below 0.1 stop a run), and gains are never lost by being small.
    The best weights (with ``EMAHook`` the averaged ones, which were evaluated) lie in ``best_weights.pth`` in the
    work dir. At the end of the training they are in the model, and in the average. The evaluations lie in
    ``early_stopping.jsonl``.

    Args:
        monitor: Name of a metric, such as ``"val/loss"`` (of ``cvplugins.ValidationLoss``) or ``"voc/AP50"``.
        rule: ``"less"`` or ``"greater"`` is better; None goes by the name.
        min_delta: Least gain that counts as progress, in units of the metric.
        patience: Stop after so many validations without progress.
        warmup: The first so many validations do not count.
        divergence: Stop at once when worse than the best by more than this, in units of the metric.
        stopping_threshold: Stop at once when as good as this.
        check_finite: Stop at once at NaN or infinity.
        restore_best: False keeps no weights.
    """

    journal_name = "early_stopping.jsonl"
    checkpoint_key = "cvplugins_early_stopping"

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
        self.name = monitor
        self.restore_best = restore_best
        self.monitor = EarlyStopping(
            mode=mode_of(monitor, rule),
            min_delta=min_delta,
            patience=patience,
            warmup=warmup,
            divergence=divergence,
            goal=stopping_threshold,
            check_finite=check_finite,
        )
        self._seen = False

    def before_train(self, runner) -> None:
        """Begin without the weights of an earlier run, or continue where a run was killed."""
        if not hasattr(runner.train_loop, "stop_training"):
            raise ValueError(f"EarlyStoppingHook cannot stop a {type(runner.train_loop).__name__}: no stop_training")
        self._best = BestWeights(Path(runner.work_dir, "best_weights.pth"))
        if self.restore_best and not runner.iter:
            self._best.discard()
        super().before_train(runner)
        if self.monitor.waited >= self.monitor.patience and not runner.train_loop.stop_training:
            self._stop(runner, f"no progress in {self.monitor.waited} validations before it was resumed")

    def monitored(self) -> dict[str, str]:
        """Return the name of the metric."""
        return {"monitor": self.name}

    def record(self, runner, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the monitored value."""
        return {"metric": self.name, "value": self.value(runner, metrics, self.name, self._seen)}

    def observe(self, runner, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Keep the weights if they are the best ones, and stop if it is time."""
        self._seen |= record["value"] is not None
        report = self.monitor.observe(record["value"], record["iteration"])
        if report is None:
            return {}
        if report.is_best and self.restore_best and not replayed:
            # EMAHook has not yet put the training weights back.
            self._best.keep(_bare(runner.model), iteration=runner.iter, epoch=runner.epoch, **{self.name: report.value})
        if report.stop:
            self._stop(runner, report.stop)
        return {"best": self.monitor.best, "waited": report.waited, "stop": report.stop}

    def after_train(self, runner) -> None:
        """Put the best weights into the model, and into the average of ``EMAHook``."""
        super().after_train(runner)
        if not self.restore_best or self.monitor.best is None:
            return
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        try:
            meta = self._best.restore(_bare(runner.model), *averages)
        except RuntimeError as error:
            runner.logger.warning(f"{error}; the model has the weights of the last iteration")
            return
        runner.logger.info(
            f"the model has the weights of iteration {meta['iteration']} again, with the best {self.name} "
            f"of {meta[self.name]:.6g}; they lie in {self._best.path}"
        )

    def _stop(self, runner, reason: str) -> None:
        runner.train_loop.stop_training = True
        runner.logger.info(f"early stopping by {self.name}: {reason}")


def _bare(model):
    return model.module if is_model_wrapper(model) else model

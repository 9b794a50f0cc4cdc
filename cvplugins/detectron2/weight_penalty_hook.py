"""Hook: L1, L2 and elastic net on chosen parameters, without touching the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from cvplugins.errors import UserError
from cvplugins.monitors import WeightShrinkage

from .plugin_hook import PluginHook, logger

__all__ = ["WeightPenaltyHook"]

FORMS = ("gradient", "proximal")


class WeightPenaltyHook(PluginHook):
    """Penalise chosen parameters at the optimizer's step; see :class:`cvplugins.monitors.WeightShrinkage`.

    The loss in the log stays that of the data. Every ``interval`` iterations the storage gets ``weight_penalty`` and
    ``weight_sparsity`` (the share of weights that are exactly 0), at the end the log the sparsest layers.

    Args:
        l1: Factor of the absolute values; it makes weights small, with ``form="proximal"`` exactly 0.
        l2: Factor of the squares' halves; as gradient it is SGD's ``weight_decay``.
        form: ``"gradient"``, added before the step, or ``"proximal"``, a step of its own after it.
        include: Patterns of the names of the parameters, such as ``["backbone.*"]``.
        exclude: Patterns of those that are left out.
        min_dims: Parameters with fewer dimensions are left out; 2 leaves out biases.
        norms: Whether normalisation layers are penalised too.
        interval: Iterations between two reports.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        l1: float = 0.0,
        l2: float = 0.0,
        form: str = "gradient",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        min_dims: int = 2,
        norms: bool = False,
        interval: int = 50,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; use one of {', '.join(FORMS)}")
        if not (l1 >= 0 and l2 >= 0 and l1 + l2 > 0):
            raise ValueError(f"l1 is {l1} and l2 is {l2}; neither may be negative, and one has to be above 0")
        if interval < 1:
            raise ValueError(f"interval is {interval}; it must be at least 1 iteration")
        self.options: dict[str, Any] = {
            "l1": l1,
            "l2": l2,
            "include": include,
            "exclude": exclude,
            "min_dims": min_dims,
            "norms": norms,
        }
        self.form = form
        self.interval = interval
        self._shrinkage: Any = None  # a WeightShrinkage from begin on

    def begin(self) -> None:
        """Find the parameters, and watch the steps."""
        try:
            self._shrinkage = WeightShrinkage(self.model, **self.options)
        except ValueError as error:
            raise UserError(f"WeightPenaltyHook: {error}") from error
        gradient = self.form == "gradient"
        self.watch_steps(before=self._before if gradient else None, after=None if gradient else self._after)
        logger.info("weight penalty on %d parameters, as %s", len(self._shrinkage.parameters), self.form)

    # Fused optimizers unscale in their step, and are called for a step that they skip: see GradScaler.step.
    def _before(self, optimizer: Optimizer) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        self._shrinkage.add_gradient(optimizer, scale=1.0 if scale is None else scale)

    def _after(self, optimizer: Optimizer) -> None:
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is None or not overflow.item():
            self._shrinkage.shrink(optimizer)

    def after_step(self) -> None:
        """Report at intervals."""
        if (self.trainer.iter + 1) % self.interval == 0:
            report = self._shrinkage.report()
            scalars = {"weight_penalty": report.penalty, "weight_sparsity": report.sparsity}
            self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)

    def finish(self) -> None:
        """Say what came of it."""
        if self._shrinkage is not None:
            report = self._shrinkage.report()
            sparsest = sorted(report.layers.items(), key=lambda layer: -layer[1])[:5]
            listed = ", ".join(f"{name} ({share:.1%})" for name, share in sparsest)
            logger.info("%.2f%% of the penalised weights are 0; most in %s", 100 * report.sparsity, listed)

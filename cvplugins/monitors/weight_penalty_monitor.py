"""L1, L2 and elastic net on chosen parameters, without touching the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .options import require_at_least
from .run import Monitor, Run, Step
from .weight_shrinkage import WeightShrinkage

__all__ = ["WeightPenaltyMonitor"]

FORMS = ("gradient", "proximal")


@dataclass
class WeightPenaltyMonitor(Monitor):
    """Penalise chosen parameters at the optimizer's step; see :class:`cvplugins.monitors.WeightShrinkage`.

    The loss in the log stays that of the data. Every ``interval`` iterations the log gets ``weight_penalty`` and
    ``weight_sparsity`` (the share of weights that are exactly 0), at the end the sparsest layers.

    Args:
        l1: Factor of the absolute values; it makes weights small, with ``form="proximal"`` exactly 0.
        l2: Factor of the squares' halves; as gradient it is SGD's ``weight_decay``.
        form: ``"gradient"``, added before the step, or ``"proximal"``, a step of its own after it.
        include: Patterns of the names of the parameters, such as ``["backbone.*"]``.
        exclude: Patterns of those that are left out, such as ``["*relative_position_bias_table"]``.
        min_dims: Parameters with fewer dimensions are left out; 2 leaves out biases.
        norms: Whether normalisation layers are penalised too.
        interval: Iterations between two reports.

    Raises:
        ValueError: An option is out of its range.
    """

    l1: float = 0.0
    l2: float = 0.0
    form: str = "gradient"
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    min_dims: int = 2
    norms: bool = False
    interval: int = 50

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form is {self.form!r}; use one of {', '.join(FORMS)}")
        if not (self.l1 >= 0 and self.l2 >= 0 and self.l1 + self.l2 > 0):
            raise ValueError(f"l1 is {self.l1} and l2 is {self.l2}; neither may be negative, and one has to be above 0")
        require_at_least(1, interval=self.interval)

    def begin(self, run: Run) -> None:
        """Find the parameters."""
        self._shrinkage = WeightShrinkage(
            run.model, self.l1, self.l2, self.include, self.exclude, self.min_dims, self.norms
        )
        own = {id(parameter) for parameter in self._shrinkage.parameters.values()}
        groups = [group for optimizer in run.optimizers.values() for group in optimizer.param_groups]
        decayed = [group for group in groups if group.get("weight_decay")]
        if self.l2 and any(id(parameter) in own for group in decayed for parameter in group["params"]):
            run.warn("l2 of WeightPenaltyHook comes on top of the optimizer's weight_decay; set one of them to 0")
        run.info(f"weight penalty on {len(self._shrinkage.parameters)} parameters, as {self.form}")

    def before_step(self, run: Run, step: Step) -> None:
        """Add the gradient of the penalty."""
        if self.form == "gradient":
            scale = step.gradient_scale
            self._shrinkage.add_gradient(step.optimizer, scale=1.0 if scale is None else scale)

    def after_step(self, run: Run, step: Step) -> None:
        """Shrink the weights."""
        if self.form == "proximal" and not step.is_void():
            self._shrinkage.shrink(step.optimizer)

    def after_iteration(self, run: Run) -> None:
        """Report at intervals."""
        if run.ends_interval(self.interval):
            report = self._shrinkage.report()
            run.log({"weight_penalty": report.penalty, "weight_sparsity": report.sparsity})

    def finish(self, run: Run) -> None:
        """Say what came of it."""
        report = self._shrinkage.report()
        sparsest = sorted(report.layers.items(), key=lambda layer: -layer[1])[:5]
        listed = ", ".join(f"{name} ({share:.1%})" for name, share in sparsest)
        run.info(f"{report.sparsity:.2%} of the penalised weights are 0; most in {listed}")

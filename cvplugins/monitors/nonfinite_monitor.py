"""Stop, skip or roll back when something is NaN or infinite, and save the iteration so that it can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from cvplugins.distributed import rank
from cvplugins.errors import first_line

from .nonfinite import Fault, NonFiniteError, NonFiniteGuard, NonFiniteReport
from .replay import ReplayWriter, first_nonfinite_layer
from .run import Monitor, Run, Step

__all__ = ["Attempt", "NonFiniteMonitor"]


@dataclass
class Attempt:
    """What an iteration is made of, as far as its framework has come.

    Attributes:
        batch: What a replay file keeps of it; None if there was no forward pass.
        losses: Components by name, not reduced over ranks.
        images: Names of the images, for messages.
        inputs: Tensors by the name of their image.
        repeat: Runs the forward pass again; None if there was none.
    """

    batch: Any = None
    losses: dict[str, Any] = field(default_factory=dict)
    images: Sequence[str] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    repeat: Callable[[], object] | None = None


class NonFiniteMonitor(Monitor):
    """Guard every step against NaN and infinity; see :class:`cvplugins.monitors.NonFiniteGuard`.

    A bad iteration never reaches the weights: the gradients are dropped in the optimizer's step, and the batch norms
    get their statistics back. The log says which parameter, layer, loss component, statistic and images; the file
    ``replay/iter_N_rankR.pt`` in the work dir repeats the iteration with ``cvplugins replay``. Steps that AMP's
    GradScaler skips are no fault, but a loss that is not finite is. All ranks decide alike. With gradient
    accumulation every iteration is guarded, and a bad one drops what was accumulated before it. A step that makes the
    weights themselves overflow is found in the next iteration, and in any case before a checkpoint, a validation or
    the end. A rollback takes the average of ``EMAHook`` along.

    Args:
        policy: ``"raise"``, ``"skip"`` or ``"rollback"``.
        max_skips: So many bad iterations in a row are skipped; the next one raises.
        max_rollbacks: So many rollbacks are made in a run; the next one raises.
        lr_factor: What a rollback multiplies the learning rates by.
        snapshot_interval: Iterations between the snapshots that ``"rollback"`` goes back to.
        max_replays: Replay files that a run writes at most, 0 for none. Each is as large as a checkpoint.
        find_layer: Whether to run the forward pass of a bad iteration again, to name the first layer whose output is
            not finite. All ranks do it together, because a model's forward pass may talk to other ranks.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        policy: str = "raise",
        max_skips: int = 5,
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        snapshot_interval: int = 500,
        max_replays: int = 3,
        find_layer: bool = True,
    ) -> None:
        self.guard = NonFiniteGuard(policy, max_skips, max_rollbacks, lr_factor, snapshot_interval)
        self.find_layer = find_layer
        self.is_observed = False  # whether this iteration was looked at
        self.attempt = Attempt()
        self._replays = ReplayWriter(self.guard, max_replays)
        self._is_first = True

    def begin(self, run: Run) -> None:
        """Expect the first iteration."""
        self._is_first = True

    def before_iteration(self, run: Run) -> None:
        """Remember what the iteration starts from."""
        self.is_observed, self.attempt = False, Attempt()
        self.guard.begin(run.model)
        if self._is_first:  # when all plugins have begun
            self._snapshot(run, force=True)
            self._is_first = False

    def before_step(self, run: Run, step: Step) -> None:
        """Guard the step."""
        self.observe(run, step)

    def observe(self, run: Run, step: Step | None = None) -> None:
        """Look at this iteration, and undo it if it is bad; all ranks have to call this.

        Args:
            run: The training.
            step: The step that an optimizer is about to take; None if none does.

        Raises:
            NonFiniteError: The policy, or its limits, say so.
        """
        self.is_observed = True
        attempt = self.attempt
        report = self.guard.observe(
            run.model,
            attempt.losses,
            run.iteration,
            images=attempt.images,
            inputs=attempt.inputs,
            # Scaled gradients may overflow. Where a GradScaler lets an optimizer step, they are unscaled and finite.
            gradients=step is not None or not run.is_scaled,
            step_is_void=None if step is None else step.overflow,
        )
        if report is None:
            self._snapshot(run)
        elif self.guard.is_answered(report):
            self._drop(run)
        else:
            self._answer(run, report)

    def end_iteration(self, run: Run, is_used_next: bool) -> None:
        """Guard an iteration without a step: one that only accumulates, or whose step AMP skipped.

        A step that made the weights overflow is found in the next iteration, but before they are used.

        Args:
            run: The training.
            is_used_next: Whether the weights are saved or evaluated before the next iteration; all ranks agree on it.
        """
        if not self.is_observed or is_used_next:
            self.observe(run)
        self.attempt = Attempt()

    def _answer(self, run: Run, report: NonFiniteReport) -> None:
        layer = self._first_layer(run) if self.find_layer else None
        message = str(report) if layer is None else f"{report}; first layer: {layer.name} ({layer.detail})"
        if rank() in report.culprits:
            message += self._replays.save(
                Path(run.work_dir, "replay"),
                report,
                layer,
                run.model,
                self._optimizers(run),
                self.attempt.batch,
                autocast=run.autocast,
                config=run.config_name,
                framework=run.framework,
            )
        self._drop(run)
        try:
            action = self.guard.decide(report)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}{message.removeprefix(str(report))}") from None
        if action == "rollback":
            start = self.guard.roll_back(run.model, self._optimizers(run), run.averages)
            run.scale_learning_rates(self.guard.lr_factor)
            run.warn(f"{message}; rolled back to iteration {start} (rollback {self.guard.rollbacks})")
        else:
            run.warn(f"{message}; skipped (number {self.guard.skips_in_a_row} in a row)")
        run.plot({"nonfinite/skips": self.guard.skips, "nonfinite/rollbacks": self.guard.rollbacks})

    def _drop(self, run: Run) -> None:
        """Forget the iteration; a second look at it is at the weights."""
        for each in self._optimizers(run):
            each.zero_grad(set_to_none=True)  # an optimizer leaves a parameter without gradient alone
        self.guard.undo_forward(run.model)
        self.attempt.losses = {}

    def _first_layer(self, run: Run) -> Fault | None:
        if self.attempt.repeat is None:
            return None
        self.guard.undo_forward(run.model)
        try:
            return first_nonfinite_layer(run.model, self.attempt.repeat, self.guard.random)
        except Exception as error:  # whatever fails here must not hide the fault
            run.warn(f"the first layer is not known: {type(error).__name__}: {first_line(error)}")
            return None

    def _snapshot(self, run: Run, force: bool = False) -> None:
        self.guard.snapshot(run.model, self._optimizers(run), run.iteration, force, run.averages)

    @staticmethod
    def _optimizers(run: Run) -> list[Optimizer]:
        return list(run.optimizers.values())

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted."""
        return self.guard.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.guard.load_state_dict(state)

"""NaN and infinity in training: found before the weights are spoilt, named, and answered on all ranks alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvplugins.distributed import gather_objects, is_distributed, rank

from .finite import any_suspicious, describe_nonfinite
from .random_state import random_state

__all__ = ["Fault", "NonFiniteError", "NonFiniteGuard", "NonFiniteReport", "find_faults", "running_statistics"]


class Stateful(Protocol):
    """What has a state, such as a model or an average of its weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore a state."""


POLICIES = ("raise", "skip", "rollback")
KINDS = ("parameter", "input", "activation", "loss", "statistic", "gradient")  # causes before their effects


class NonFiniteError(FloatingPointError):
    """Training cannot go on: something is NaN or infinite."""


@dataclass(frozen=True)
class Fault:
    """One thing that is not finite.

    Attributes:
        kind: ``"parameter"``, ``"input"``, ``"activation"`` (a layer's output), ``"loss"``, ``"statistic"``
            (of a batch norm) or ``"gradient"``.
        name: Of the parameter, layer, loss component, statistic, or image.
        detail: How many values of it.
        rank: Process that saw it.
    """

    kind: str
    name: str
    detail: str
    rank: int = 0


@dataclass(frozen=True)
class NonFiniteReport:
    """What was not finite in one iteration, on any rank.

    Attributes:
        iteration: When.
        faults: Everything that was found, causes before effects.
        images: Of each rank that saw a fault of the first kind, the batch's images.
    """

    iteration: int
    faults: tuple[Fault, ...]
    images: Mapping[int, tuple[str, ...]]

    @property
    def culprits(self) -> tuple[int, ...]:
        """Ranks that saw a fault of the kind that causes the others."""
        return tuple(sorted({fault.rank for fault in self.faults if fault.kind == self.faults[0].kind}))

    def __str__(self) -> str:
        parts = []
        for kind in KINDS:
            names = list(dict.fromkeys(fault.name for fault in self.faults if fault.kind == kind))
            if names:
                parts.append(f"{kind} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if names[3:] else ""))
        first = self.faults[0]
        images = [f"rank {number}: {', '.join(names) or 'unknown'}" for number, names in self.images.items()]
        return (
            f"iteration {self.iteration}: not finite: {'; '.join(parts)} "
            f"({first.name}: {first.detail}); images of {'; '.join(images)}"
        )


class NonFiniteGuard:
    """Watch losses, gradients, parameters and batch norm statistics; decide what to do about a NaN.

    Call :meth:`begin` before the forward pass and :meth:`observe` between the backward pass and the optimizer's step.
    A healthy iteration costs one read of parameters and gradients, one synchronisation of the device, and with several
    ranks one ``all_reduce`` of a number. Only a failure is looked at closely.

    Args:
        policy: ``"raise"``, ``"skip"`` the iteration, or ``"rollback"`` to the last snapshot of model and optimizer
            with a smaller learning rate (the count of iterations and the data go on).
        max_skips: So many bad iterations in a row are skipped, at least 1; the next one raises.
        max_rollbacks: So many rollbacks are made in a run, at least 1; the next one raises.
        lr_factor: What a rollback multiplies the learning rates by, in (0, 1].
        snapshot_interval: Iterations between snapshots, which lie in the CPU's memory; taken with ``"rollback"``.
            With one that divides the checkpoints' interval a resumed run rolls back to the same weights.

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> guard = NonFiniteGuard()
        >>> guard.begin(model)
        >>> loss = model(torch.tensor([1.0, float("nan")])).sum()
        >>> loss.backward()
        >>> print(guard.observe(model, {"loss": loss}, iteration=3, images=("a.jpg",)))  # doctest: +ELLIPSIS
        iteration 3: not finite: loss loss; gradient weight (loss: 1 NaN and ...); images of rank 0: a.jpg
    """

    def __init__(
        self,
        policy: str = "raise",
        max_skips: int = 5,
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        snapshot_interval: int = 500,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy is {policy!r}; choose one of {', '.join(POLICIES)}")
        counts = {"max_skips": max_skips, "max_rollbacks": max_rollbacks, "snapshot_interval": snapshot_interval}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 < lr_factor <= 1:
            raise ValueError(f"lr_factor is {lr_factor}; it must be above 0 and at most 1, such as 0.5")
        self.policy = policy
        self.max_skips, self.max_rollbacks = max_skips, max_rollbacks
        self.lr_factor, self.snapshot_interval = lr_factor, snapshot_interval
        self.skips_in_a_row = self.skips = self.rollbacks = 0
        self._is_bad = False  # whether this iteration was skipped
        self._is_answered = False  # whether it was skipped or rolled back
        self.random: dict[str, Any] = {}  # state of the generators before this iteration
        self._statistics: dict[str, Tensor] = {}
        self._snapshot: dict[str, Any] = {}

    @torch.no_grad()
    def begin(self, model: nn.Module) -> None:
        """Remember the random state and the statistics of batch norms, which the forward pass changes."""
        if not self._is_bad:
            self.skips_in_a_row = 0
        self._is_bad = self._is_answered = False
        self.random = random_state()
        now = dict(running_statistics(model))
        kept = self._statistics
        if now.keys() != kept.keys() or any(kept[name].device != value.device for name, value in now.items()):
            self._statistics = {name: value.clone() for name, value in now.items()}
            return
        for dtype in {value.dtype for value in now.values()}:  # one kernel each, where one for all would not be fused
            names = [name for name, value in now.items() if value.dtype == dtype]
            torch._foreach_copy_([kept[name] for name in names], [now[name] for name in names])

    def observe(
        self,
        model: nn.Module,
        losses: Mapping[str, Tensor | Sequence[Tensor]],
        iteration: int,
        images: Sequence[str] = (),
        inputs: Mapping[str, Tensor] | None = None,
        gradients: bool = True,
        step_is_void: Tensor | None = None,
    ) -> NonFiniteReport | None:
        """Look at one iteration; every rank has to call this.

        Args:
            model: Not wrapped by DistributedDataParallel.
            losses: Components by name, not reduced over ranks.
            iteration: The current one.
            images: Names of the batch's images, for the report.
            inputs: Tensors of the batch by the name of their image; looked at after a failure only.
            gradients: Whether the gradients count. False while an AMP loss scale may make them overflow.
            step_is_void: ``found_inf`` of an optimizer that skips by itself: above 0 gradients do not count.

        Returns:
            A report, the same on all ranks, or None if all is finite.
        """
        flag = any_suspicious(_watched(model, losses))
        if gradients:
            ours = any_suspicious(value.grad for value in model.parameters() if value.grad is not None)
            if step_is_void is not None:
                ours = ours * (step_is_void.to(ours.device) == 0)
            flag = torch.maximum(flag, ours.to(flag.device))
        if is_distributed():
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        if not flag.item():
            return None
        gradients = gradients and (step_is_void is None or not step_is_void.item())
        own = find_faults(model, losses, inputs or {}, gradients)
        everything = gather_objects((own, tuple(images)))
        faults = sorted((fault for faults, _ in everything for fault in faults), key=lambda x: KINDS.index(x.kind))
        if not faults:  # large but finite values
            return None
        culprits = {fault.rank for fault in faults if fault.kind == faults[0].kind}
        shown = {number: names for number, (_, names) in enumerate(everything) if number in culprits}
        return NonFiniteReport(iteration, tuple(faults), shown)

    def is_answered(self, report: NonFiniteReport) -> bool:
        """Return whether this iteration was answered before, at the step of another optimizer, and no weight is bad."""
        return self._is_answered and all(fault.kind != "parameter" for fault in report.faults)

    def decide(self, report: NonFiniteReport) -> str:
        """Return ``"skip"`` or ``"rollback"``, and count it.

        Raises:
            NonFiniteError: The policy says so, its limit is reached, or skipping cannot mend the weights.
        """
        if self.policy == "raise":
            raise NonFiniteError(str(report))
        if self.policy == "rollback":
            if self.rollbacks == self.max_rollbacks:
                raise NonFiniteError(f"{report}; max_rollbacks={self.max_rollbacks} rollbacks were made before")
            self.rollbacks += 1
            self._is_answered = True
            return "rollback"
        if any(fault.kind == "parameter" for fault in report.faults):
            raise NonFiniteError(f"{report}; skipping does not mend weights: use policy='rollback'")
        if self.skips_in_a_row == self.max_skips:
            raise NonFiniteError(f"{report}; max_skips={self.max_skips} iterations in a row were skipped before")
        self.skips_in_a_row += 1
        self.skips += 1
        self._is_bad = self._is_answered = True
        return "skip"

    @torch.no_grad()
    def undo_forward(self, model: nn.Module) -> None:
        """Give the batch norms back the statistics that they had at :meth:`begin`."""
        for name, value in running_statistics(model):
            if name in self._statistics:
                value.copy_(self._statistics[name])

    def state_before(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the model's weights with the statistics of before this iteration, on the CPU."""
        return {name: self._statistics.get(name, value).cpu() for name, value in model.state_dict().items()}

    def snapshot(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        iteration: int,
        force: bool = False,
        averages: Sequence[Stateful] = (),
    ) -> None:
        """Copy all this to the CPU's memory, if the policy needs it and it is time; ``averages`` are of the weights."""
        if self.policy == "rollback" and (force or iteration % self.snapshot_interval == 0):
            self._snapshot = {
                "iteration": iteration,
                "model": _copied(model.state_dict()),
                "optimizers": [(optimizer, _copied(optimizer.state_dict())) for optimizer in optimizers],
                "averages": [_copied(average.state_dict()) for average in averages],
            }

    def roll_back(self, model: nn.Module, optimizers: Sequence[Optimizer], averages: Sequence[Stateful] = ()) -> int:
        """Restore the last snapshot, but for the learning rates, and return the iteration that it is from."""
        model.load_state_dict(self._snapshot["model"])
        for optimizer, (then, state) in zip(optimizers, self._snapshot["optimizers"], strict=True):
            if optimizer is not then:  # switched since: it does not know the other's moments, and has to begin anew
                optimizer.state.clear()
                continue
            # The schedule goes on from where it is: only momentum and the like are restored.
            now = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({**_copied(state), "param_groups": now})
        # The step that broke the weights has broken their average, which would never heal.
        for average, state in zip(averages, self._snapshot["averages"], strict=True):
            average.load_state_dict(state)
        return int(self._snapshot["iteration"])

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {
            "skips_in_a_row": self.skips_in_a_row if self._is_bad else 0,
            "skips": self.skips,
            "rollbacks": self.rollbacks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.skips_in_a_row, self.skips = state["skips_in_a_row"], state["skips"]
        self.rollbacks = state["rollbacks"]
        self._is_bad = self.skips_in_a_row > 0


def running_statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of the batch norm statistics that a forward pass in training mode changes."""
    for prefix, module in model.named_modules():
        if module.training:
            for name, value in module.named_buffers(recurse=False):
                if name.startswith("running_") or name == "num_batches_tracked":
                    yield f"{prefix}.{name}" if prefix else name, value


def find_faults(
    model: nn.Module,
    losses: Mapping[str, Tensor | Sequence[Tensor]],
    inputs: Mapping[str, Tensor] | None = None,
    gradients: bool = True,
) -> tuple[Fault, ...]:
    """Return everything that is not finite, looking at each tensor by itself.

    Gradients come in the order of the backward pass, which meets the last layers first.
    """
    kinds: dict[str, dict[str, Tensor]] = {
        "parameter": dict(model.named_parameters()),
        "input": dict(inputs or {}),
        "loss": dict(_components(losses)),
        "statistic": dict(running_statistics(model)),
    }
    if gradients:
        named = [(name, value.grad) for name, value in model.named_parameters() if value.grad is not None]
        kinds["gradient"] = dict(reversed(named))
    return tuple(
        Fault(kind, name, detail, rank())
        for kind, named in kinds.items()
        for name, detail in describe_nonfinite(named).items()
    )


def _watched(model: nn.Module, losses: Mapping[str, Tensor | Sequence[Tensor]]) -> Iterator[Tensor]:
    """Yield what can become non-finite besides the gradients; what is frozen cannot."""
    yield from (value for value in model.parameters() if value.requires_grad)
    yield from (value for _, value in _components(losses))
    yield from (value for _, value in running_statistics(model))


def _components(losses: Mapping[str, Tensor | Sequence[Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of each loss component; a head may return one a level."""
    for name, value in losses.items():
        if isinstance(value, Tensor):
            yield name, value
        else:
            yield from ((f"{name}[{index}]", each) for index, each in enumerate(value) if isinstance(each, Tensor))


def _copied(value: Any) -> Any:
    """Return a copy of nested containers with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(each) for each in value)
    return value

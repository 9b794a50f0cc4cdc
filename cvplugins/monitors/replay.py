"""A failed iteration in a file, and the way back to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins.distributed import rank
from cvplugins.errors import first_line
from cvplugins.files import write_whole

from .nonfinite import Fault, NonFiniteGuard, NonFiniteReport, find_faults, running_statistics
from .random_state import random_state, restore_random_state

__all__ = ["Replay", "ReplayWriter", "first_nonfinite_layer", "reproduce"]

FORMAT = "cvplugins replay 1"
# The types of a replay's fields; a batch can be anything.
KINDS: dict[str, Any] = {
    "iteration": int,
    "faults": (list, tuple),
    "images": (list, tuple),
    "model": Mapping,
    "optimizers": (list, tuple),
    "random": dict,
    "evaluating": (list, tuple),
    "frozen": (list, tuple),
    "autocast": (tuple, list, type(None)),
    "config": (str, type(None)),
    "framework": str,
}
Losses = Mapping[str, Tensor | Sequence[Tensor]]


@dataclass
class Replay:
    """What one iteration on one rank needs to happen again.

    Attributes:
        iteration: Its number.
        faults: What was not finite on this rank, as the fields of :class:`~cvplugins.monitors.Fault`.
        images: Names of the batch's images.
        model: Weights and statistics before the iteration.
        optimizers: States of the optimizers.
        random: State of the random generators before the iteration.
        batch: As the data loader gave it; of Detectron2 the list of those that the iteration accumulated.
        evaluating: Names of the modules in evaluation mode; the others train.
        frozen: Names of the parameters that require no gradient.
        autocast: Device type and dtype of AMP, or None.
        config: Name of the run's config, or None.
        framework: ``"openmmlab"`` or ``"detectron2"``, which builds the model and computes its losses.
    """

    iteration: int
    faults: list[tuple[str, str, str, int]]
    images: list[str]
    model: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    random: dict[str, Any]
    batch: Any
    evaluating: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    autocast: tuple[str, str] | None = None
    config: str | None = None
    framework: str = "openmmlab"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all."""
        with write_whole(path) as temporary:
            torch.save({"format": FORMAT, **vars(self)}, temporary)

    @classmethod
    def from_dict(cls, content: Any) -> Replay:
        """Return what a loaded file holds.

        Raises:
            ValueError: It is no replay file.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it is no replay file (expected the format {FORMAT!r})")
        found = {name: value for name, value in content.items() if name != "format"}
        _check_fields(found)
        return cls(**found)

    def restore(self, model: nn.Module) -> None:
        """Put the model and the random generators into the state of before the iteration.

        Raises:
            RuntimeError: The weights are those of another architecture.
        """
        model.load_state_dict(self.model)
        for name, module in model.named_modules():
            module.training = name not in self.evaluating
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self.frozen)
        restore_random_state(self.random)


class ReplayWriter:
    """Write the replay files of a run, from what its guard remembers.

    Args:
        guard: Knows the state of before the iteration.
        limit: Files that this process writes at most. Each is as large as a checkpoint.

    Raises:
        ValueError: ``limit`` is negative.
    """

    def __init__(self, guard: NonFiniteGuard, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"max_replays is {limit}; give 0 or more")
        self.guard, self.limit = guard, limit
        self._written = 0

    def save(
        self,
        folder: str | os.PathLike[str],
        report: NonFiniteReport,
        layer: Fault | None,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        batch: Any,
        *,
        autocast: tuple[str, str] | None,
        config: str | None,
        framework: str,
    ) -> str:
        """Write ``folder/iter_N_rankR.pt``, and return what the log should say of it; nothing above the limit."""
        if self._written >= self.limit:
            return ""
        self._written += 1
        path = Path(folder, f"iter_{report.iteration}_rank{rank()}.pt")
        own = [fault for fault in (*report.faults, *([layer] if layer else [])) if fault.rank == rank()]
        replay = Replay(
            iteration=report.iteration,
            faults=[(fault.kind, fault.name, fault.detail, fault.rank) for fault in own],
            images=list(report.images[rank()]),
            model=self.guard.state_before(model),
            optimizers=[optimizer.state_dict() for optimizer in optimizers],
            random=self.guard.random,
            batch=batch,
            evaluating=[name for name, module in model.named_modules() if not module.training],
            frozen=[name for name, value in model.named_parameters() if not value.requires_grad],
            autocast=autocast,
            config=config,
            framework=framework,
        )
        try:
            replay.save(path)
        except Exception as error:  # a full disk must not hide the fault
            return f"; no replay file: {type(error).__name__}: {first_line(error)}"
        return f"; to repeat it: cvplugins replay {path}"


def reproduce(replay: Replay, model: nn.Module, forward: Callable[[], Losses]) -> tuple[Fault, ...]:
    """Run a failed iteration again, forwards and backwards, and return what is not finite this time.

    Args:
        replay: The iteration.
        model: Of the same architecture, on any device.
        forward: Computes the loss components of ``replay.batch`` with ``model``.
    """
    replay.restore(model)
    model.zero_grad(set_to_none=True)
    device_type, dtype = replay.autocast or ("cpu", "bfloat16")
    with (
        _first_bad_output(model) as found,
        torch.autocast(device_type, getattr(torch, dtype), enabled=replay.autocast is not None),
    ):
        losses = forward()
    total = sum(_mean(value) for value in losses.values())
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    return (*found, *find_faults(model, losses))


def first_nonfinite_layer(model: nn.Module, forward: Callable[[], object], random: dict[str, Any]) -> Fault | None:
    """Return the first layer whose output is not finite, by one more forward pass without gradients.

    The model's statistics and the random generators are left as they are.

    Args:
        model: In the state that failed.
        forward: Runs the model on the batch that failed.
        random: State of the generators with which it failed.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> bad = torch.tensor([float("inf")])
        >>> first_nonfinite_layer(model, lambda: model(bad), random_state()).name
        '0'
    """
    statistics = {name: (value, value.clone()) for name, value in running_statistics(model)}
    now = random_state()
    restore_random_state(random)
    try:
        with _first_bad_output(model) as found, torch.no_grad():
            forward()
    finally:
        restore_random_state(now)
        with torch.no_grad():
            for value, before in statistics.values():
                value.copy_(before)
    return found[0] if found else None


@contextmanager
def _first_bad_output(model: nn.Module) -> Iterator[list[Fault]]:
    """Yield a list that gets the first module, in the order of finishing, whose output is not finite."""
    found: list[Fault] = []

    def look(name: str, output: object) -> None:
        for value in [] if found else _tensors(output):
            if value.is_floating_point() and not bool(value.isfinite().all()):
                bad = int((~value.isfinite()).sum())
                detail = f"{bad} of {value.numel()} values of the output are NaN or infinite"
                found.append(Fault("activation", name, detail, rank()))
                return

    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _check_fields(found: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless the fields of a :class:`Replay` are there, and of their types."""
    names = {each.name for each in fields(Replay)}
    needed = {each.name for each in fields(Replay) if each.default is MISSING and each.default_factory is MISSING}
    if missing := sorted(needed - set(found)):
        raise ValueError(f"it has no {', '.join(missing)}")
    if unknown := sorted(map(repr, set(found) - names)):
        raise ValueError(f"it has the unknown {', '.join(unknown)}")
    for name, value in found.items():
        kinds = KINDS.get(name, object)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"its {name} is a {type(value).__name__}")
    for name in ("images", "evaluating", "frozen"):
        if not all(isinstance(each, str) for each in found.get(name, [])):
            raise ValueError(f"its {name} are not all words")
    for fault in found["faults"]:
        if not isinstance(fault, (tuple, list)) or [type(each) for each in fault] != [str, str, str, int]:
            raise ValueError(f"its faults have {fault!r:.80}, not kind, name, detail and rank")
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found["model"].items()):
        raise ValueError("its model is not made of tensors by their names")
    autocast = found.get("autocast")
    if autocast is not None and (
        len(autocast) != 2
        or autocast[0] not in ("cpu", "cuda")
        or not isinstance(getattr(torch, str(autocast[1]), None), torch.dtype)
    ):
        raise ValueError(f"its autocast is {autocast!r:.80}, not a device and a dtype")


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _mean(value: Tensor | Sequence[Tensor]) -> Tensor:
    """Return what the frameworks add to the total loss for one component."""
    return value.mean() if isinstance(value, Tensor) else torch.stack([each.mean() for each in value]).sum()

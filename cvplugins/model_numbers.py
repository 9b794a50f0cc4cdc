"""Numbers that a model counts in outside of its ``state_dict``: attributes of its modules and of what these hold."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvplugins.distributed import rank

__all__ = ["ModelNumbers", "kept_numbers"]

LARGEST = 1_000_000  # elements: an attribute with more of them is an activation that a module left behind
OF_TORCH = frozenset(vars(nn.Module()))
OTHERS = ("abc", "builtins", "collections", "numpy", "torch", "typing")  # packages whose objects are no model's parts
_NOT_PLAIN = object()


class ModelNumbers:
    """What training has changed of a model that its ``state_dict`` does not hold.

    Detectron2's RetinaNet divides its losses by a running mean, Dynamic R-CNN moves the thresholds of its assigner,
    DDOD counts samples, DropBlock iterations: all in plain attributes, so that a resumed run would begin them anew.

    Attributes count whose values are numbers, texts, None, tensors without a graph, and lists, tuples and dicts of
    these, of all modules, and of objects that modules hold, if these come from a package that the module's classes
    come from; also buffers that are not persistent. Those that have the value that the constructor gave are left out,
    so that a resumed run may have another config.

    Args:
        model: As its constructor left it.
        foreign: Types of objects that are no part of a model though a module may hold them, such as a logger.

    Example:
        >>> class Head(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.normalizer, self.history, self.momentum = 100.0, [], 0.9
        >>> model, again = (nn.Sequential(Head()) for _ in range(2))
        >>> numbers = ModelNumbers(model)
        >>> model[0].normalizer, model[0].history = 90.0, [0.5]
        >>> numbers.changed()
        {'0': {'normalizer': 90.0, 'history': [0.5]}}
        >>> ModelNumbers(again).restore(numbers.changed())
        >>> again[0].normalizer, again[0].history
        (90.0, [0.5])
    """

    def __init__(self, model: nn.Module, foreign: tuple[type, ...] = ()) -> None:
        self.model = model
        self.foreign = foreign
        self._start = {name: _values(holder) for name, holder in _holders(model, foreign)}
        self._is_restored: dict[str, set[str]] = {}

    def changed(self) -> dict[str, dict[str, Any]]:
        """Return copies of the values that the constructor did not give, by holder and attribute; tensors on the CPU.

        What was restored stays among them.
        """
        found = {}
        for name, holder in _holders(self.model, self.foreign):
            if name not in self._start:  # left behind by an iteration, such as its samples
                continue
            before, restored = self._start[name], self._is_restored.get(name, ())
            values = {
                attribute: value
                for attribute, value in _values(holder).items()
                if attribute in restored or attribute not in before or not _same(value, before[attribute])
            }
            if values:
                found[name] = values
        return found

    def restore_own(self, of_ranks: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
        """Set what this rank's :meth:`changed` returned, and the first one's on a rank that there was not."""
        self.restore(of_ranks[rank()] if rank() < len(of_ranks) else of_ranks[0])

    def restore(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Set what :meth:`changed` returned; what the model does not have (any more) is left out."""
        holders = dict(_holders(self.model, self.foreign))
        for name, values in state.items():
            if name not in holders or name not in self._start:
                continue
            for attribute, value in values.items():
                _put(holders[name], attribute, value, self.model)
                self._is_restored.setdefault(name, set()).add(attribute)


@contextmanager
def kept_numbers(model: nn.Module, foreign: tuple[type, ...] = ()) -> Iterator[None]:
    """Restore the numbers that a model holds as attributes, and drop new ones; see :class:`ModelNumbers`.

    >>> model = nn.Module()
    >>> with kept_numbers(model): model.normalizer = 90.0
    >>> hasattr(model, "normalizer")
    False
    """
    kept = [(holder, vars(holder).keys(), _values(holder, buffers=False)) for _, holder in _holders(model, foreign)]
    kept = [(holder, set(names), values) for holder, names, values in kept]
    try:
        yield
    finally:
        for holder, names, before in kept:
            now = _values(holder, buffers=False)
            for name in now.keys() - names:
                del vars(holder)[name]
            for name, value in before.items():
                if name not in now or not _same(value, now[name]):
                    _put(holder, name, value, model)


def _holders(model: nn.Module, foreign: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the modules and the objects that they hold, each once, by their dotted paths."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        yield name, module
        yield from _parts(f"{name}." if name else "", module, _packages(module), foreign, seen)


def _parts(
    prefix: str, holder: Any, packages: set[str], foreign: tuple[type, ...], seen: set[int]
) -> Iterator[tuple[str, Any]]:
    if not packages:
        return
    for attribute, value in list(vars(holder).items()):
        if attribute in OF_TORCH:
            continue
        for name, each in _flat(attribute, value):
            if id(each) not in seen and _is_part(each, packages, foreign):
                seen.add(id(each))
                yield f"{prefix}{name}", each
                yield from _parts(f"{prefix}{name}.", each, packages, foreign, seen)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a value, or what a list, tuple or dict of objects has in it."""
    if type(value) in (list, tuple):
        for index, each in enumerate(value):
            yield from _flat(f"{name}.{index}", each)
    elif type(value) is dict:
        for key, each in value.items():
            yield from _flat(f"{name}.{key}", each)
    else:
        yield name, value


def _is_part(value: Any, packages: set[str], foreign: tuple[type, ...]) -> bool:
    is_other = isinstance(value, (nn.Module, Tensor, type, dict, list, tuple, *foreign))
    own = type(value).__module__.partition(".")[0]
    return not is_other and own in packages and hasattr(value, "__dict__")


def _packages(module: nn.Module) -> set[str]:
    return {kind.__module__.partition(".")[0] for kind in type(module).__mro__} - set(OTHERS)


def _values(holder: Any, buffers: bool = True) -> dict[str, Any]:
    """Return copies of the plain attributes of an object, and of a module's buffers that are not persistent."""
    is_module = isinstance(holder, nn.Module)
    found = {}
    for name, value in vars(holder).items():
        if is_module and name in OF_TORCH:
            continue
        copied = _plain(value) if _size(value) <= LARGEST else _NOT_PLAIN
        if copied is not _NOT_PLAIN:
            found[name] = copied
    if is_module and buffers:
        for name in holder._non_persistent_buffers_set:
            if holder._buffers.get(name) is not None:
                found[name] = holder._buffers[name].detach().to("cpu", copy=True)
    return found


def _plain(value: Any) -> Any:
    """Return a copy of a value of plain data, with tensors for arrays; ``_NOT_PLAIN`` for any other value."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in "biuf" else _NOT_PLAIN
    if type(value) is Tensor:
        is_plain = not value.requires_grad and value.device.type != "meta" and value.layout is torch.strided
        return value.to("cpu", copy=True) if is_plain else _NOT_PLAIN
    if type(value) in (list, tuple, deque):
        copies = [_plain(each) for each in value]
        is_plain = all(each is not _NOT_PLAIN for each in copies)
        return (tuple(copies) if type(value) is tuple else copies) if is_plain else _NOT_PLAIN
    if type(value) in (dict, OrderedDict):
        named = {key: _plain(each) for key, each in value.items() if type(key) in (str, int)}
        is_plain = len(named) == len(value) and all(each is not _NOT_PLAIN for each in named.values())
        return named if is_plain else _NOT_PLAIN
    return _NOT_PLAIN


def _size(value: Any) -> int:
    if isinstance(value, (Tensor, np.ndarray)):
        return value.numel() if isinstance(value, Tensor) else value.size
    if type(value) in (list, tuple, deque):
        return sum(map(_size, value))
    return sum(map(_size, value.values())) if type(value) in (dict, OrderedDict) else 1


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _put(holder: Any, name: str, value: Any, model: nn.Module) -> None:
    """Set an attribute in the form that it has there."""
    own = vars(holder)
    if isinstance(holder, nn.Module) and holder._buffers.get(name) is not None:
        own = holder._buffers
    present = own.get(name)
    if isinstance(value, Tensor) and isinstance(present, np.ndarray):
        own[name] = value.cpu().numpy()
        return
    of_model = next(model.parameters(), torch.empty(0)).device
    value = _placed(value, present.device if isinstance(present, Tensor) else of_model)
    own[name] = deque(value, present.maxlen) if isinstance(present, deque) else value


def _placed(value: Any, device: torch.device) -> Any:
    """Return a copy of plain data with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if isinstance(value, (list, tuple)):
        return type(value)(_placed(each, device) for each in value)
    return {key: _placed(each, device) for key, each in value.items()} if isinstance(value, dict) else value

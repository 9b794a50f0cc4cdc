"""Ranks: who am I, and what do the others have; no-ops in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch.distributed as dist
from torch import Tensor

from cvplugins.errors import UserError

__all__ = [
    "check_process_count",
    "first_rank_does",
    "gather_objects",
    "is_distributed",
    "joined",
    "raised_on_every_rank",
    "rank",
    "sum_over_ranks",
    "world_size",
]

T = TypeVar("T")


def is_distributed(group: dist.ProcessGroup | None = None) -> bool:
    """Return whether this process belongs to a group of several.

    >>> is_distributed()
    False
    """
    return world_size(group) > 1


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """Return the number of processes in ``group`` (all if None); 1 without a group or outside of it."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return max(dist.get_world_size(group), 1)  # -1 outside of the group


def rank(group: dist.ProcessGroup | None = None) -> int:
    """Return the number of this process in ``group`` (all if None); 0 without a group or outside of it."""
    return dist.get_rank(group) if is_distributed(group) else 0


def sum_over_ranks(tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Sum ``tensor``, in place, over the processes of ``group`` (all if None), and return it."""
    if is_distributed(group):
        dist.all_reduce(tensor, group=group)
    return tensor


def gather_objects(obj: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Return what every process of ``group`` (all if None) passed, in the order of ranks.

    Args:
        obj: Anything that can be pickled; every process has to call this.
        group: Process group.

    Example:
        >>> gather_objects({"images": 3})
        [{'images': 3}]
    """
    if not is_distributed(group):
        return [obj]
    gathered: list[T] = [obj] * world_size(group)
    dist.all_gather_object(gathered, obj, group=group)
    return gathered


def first_rank_does(action: Callable[[], T]) -> T:
    """Let the first rank do something, and return on every rank what came of it; every rank has to call this.

    Args:
        action: What it returns has to be such that it can be pickled.

    Raises:
        UserError: The first rank's; raised on every rank.

    Example:
        >>> first_rank_does(lambda: 3)
        3
    """
    outcome: tuple[T | None, str | None] = None, None
    if rank() == 0:
        try:
            outcome = action(), None
        except UserError as error:
            outcome = None, str(error)
    found, message = gather_objects(outcome)[0]
    if message is not None:
        raise UserError(message)
    return cast(T, found)


@contextmanager
def raised_on_every_rank() -> Iterator[None]:
    """Raise a rank's ``UserError`` on all of them: else the others wait for it, and the first one prints nothing.

    Every rank has to enter it, and nothing inside may wait for other ranks after a failure.

    Raises:
        UserError: This rank's, or else the first one's of the others.
    """
    problem: UserError | None = None
    try:
        yield
    except UserError as error:
        problem = error
    messages = gather_objects(None if problem is None else str(problem))
    if problem is not None:
        raise problem
    for number, message in enumerate(messages):
        if message is not None:
            raise UserError(f"process {number}: {message}")


def check_process_count(processes: int, gpus: int) -> None:
    """Raise ``UserError`` if a node starts more processes than it has GPUs; without a GPU any number is fine.

    >>> check_process_count(2, gpus=0)
    """
    if gpus and processes > gpus:
        raise UserError(
            f"{processes} processes were asked for, but this machine has {gpus} GPU(s); "
            f"start at most {gpus}, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )


@contextmanager
def joined(join: Callable[[], None] | None) -> Iterator[None]:
    """Join the other processes of a launcher, and leave them in the end.

    Args:
        join: Joins them; None where there are none. It is not called in a process that has joined them already.

    Example:
        >>> with joined(None): is_distributed()
        False
    """
    if join is None or dist.is_initialized():
        yield
        return
    join()
    try:
        yield
    finally:
        dist.destroy_process_group()

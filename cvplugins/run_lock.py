"""One run at a time in a folder: a lock that names its owner, and that dies with it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .distributed import first_rank_does, rank
from .errors import UserError, first_line

try:
    import fcntl
except ImportError:  # Windows: there the sign of life below decides
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_unlocked", "locked"]

logger = logging.getLogger(__name__)

NAME = ".cvplugins.lock"
# The owner touches its lock; who stands still for so many seconds is dead.
SIGN_OF_LIFE, PATIENCE = 5.0, 30.0


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for this run, all ranks of it; every rank has to enter.

    The lock is a file with the owner's host and process. The system releases it when the owner dies, however it does,
    so that the lock of a dead owner is taken over. Another host may not see that, where the file system keeps such
    locks to itself; there the owner counts as dead when it has not touched its lock for half a minute.

    Args:
        folder: The run's folder; made if it is missing.

    Raises:
        UserError: Another run that is alive holds it; raised on every rank.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with locked(folder):
        ...     os.listdir(folder)
        ['.cvplugins.lock']
        >>> os.listdir(folder)
        []
    """
    path = Path(folder, NAME)
    held: list[int] = []
    first_rank_does(lambda: held.append(_acquire(path)))
    stop = threading.Event()
    keeper = threading.Thread(target=_show_life, args=(path, stop), daemon=True)
    if rank() == 0:
        keeper.start()
    try:
        yield
    finally:
        for descriptor in held:
            stop.set()
            keeper.join()
            if _is_the_file(path, descriptor):
                path.unlink()
            os.close(descriptor)


def check_unlocked(folder: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` if a run that is alive holds a folder; nothing is written."""
    path = Path(folder, NAME)
    if not path.is_file():
        return
    with path.open("rb") as file:
        _take(path, file.fileno(), shared=True)  # so that several ranks may look at once


def _acquire(path: Path) -> int:
    """Return the open file of a lock that this process holds now."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"work dir {path.parent} cannot be written ({first_line(error)})") from error
        try:
            owner = _take(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not _is_the_file(path, descriptor):  # its owner has just ended, and deleted it
            os.close(descriptor)
            continue
        if owner:
            logger.warning("took over the lock of %s, which has ended without releasing it", _in_words(owner))
        content = json.dumps({"host": platform.node(), "process": os.getpid(), "since": time.ctime()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
        return descriptor


def _take(path: Path, descriptor: int, shared: bool = False) -> dict[str, Any]:
    """Lock an open file, and return what it says of its last owner.

    Args:
        path: Its path.
        descriptor: The file.
        shared: Whether others may look at the same time.

    Raises:
        UserError: That one is alive.
    """
    is_free = _lock(descriptor, shared)
    owner = _owner(descriptor)
    is_of_another_host = bool(owner) and owner.get("host") != platform.node()
    if is_free is False or ((is_free is None or is_of_another_host) and owner and _is_touched(path)):
        raise UserError(
            f"work dir {path.parent} is in use by another run ({_in_words(owner)}): wait for its end or stop it, or "
            f"give another --work-dir. If that run has ended, delete {path}"
        )
    return owner


def _lock(descriptor: int, shared: bool) -> bool | None:
    """Return whether the file could be locked; None where the file system knows no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _owner(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # empty: killed between making and writing it
        return {}
    return found if isinstance(found, dict) else {}


def _in_words(owner: dict[str, Any]) -> str:
    if not owner:
        return "its owner is unknown"
    return f"process {owner.get('process')} on host {owner.get('host')} since {owner.get('since')}"


def _is_touched(path: Path) -> bool:
    """Return whether an owner touches its lock while we watch."""
    before, end = path.stat().st_mtime_ns, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(1.0, PATIENCE / 10))
        if not path.is_file():
            return False
        if path.stat().st_mtime_ns != before:
            return True
    return False


def _show_life(path: Path, stop: threading.Event) -> None:
    while not stop.wait(SIGN_OF_LIFE):
        with contextlib.suppress(OSError):  # a network that is away comes back
            os.utime(path)


def _is_the_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

"""What was once read from files, kept between runs in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cvplugins.errors import DataError
from cvplugins.files import write_whole

from .regular_files import stat_regular

__all__ = ["read_facts"]

logger = logging.getLogger(__name__)

Fact = TypeVar("Fact")
# A file that changed so lately may change again without another time stamp, in nanoseconds.
RACE = 2_000_000_000
STAMP = 4


def read_facts(
    paths: Sequence[Path],
    read: Callable[[Path], Fact],
    *,
    key: str,
    pack: Callable[[Fact], list[Any]],
    unpack: Callable[[list[Any]], Fact],
) -> list[Fact | DataError]:
    """Read something from each file, or take what an earlier run read if the file is still the same one.

    A file is the same one if size, time of modification, time of the last change to its entry and number of the entry
    are. Only sound files are kept: whatever ``read`` refuses is read again every time. One JSON file per folder and
    key lies in ``$CVPLUGINS_CACHE_DIR``, or in ``cvplugins`` of ``$XDG_CACHE_HOME`` or ``~/.cache``. It may be deleted
    at any time; one that cannot be read or written is passed over.

    Args:
        paths: Regular files.
        read: Returns what a file holds, or raises ``DataError``.
        key: Everything but the file that the result depends on: what is read, the version of the code and its options.
        pack: Makes a list for JSON of a result.
        unpack: The reverse; raises ``TypeError`` or ``ValueError`` for a list that ``pack`` did not make.

    Returns:
        For each file what was read, or the error.
    """
    stores = {folder: _Store(folder, key) for folder in {path.parent for path in paths}}

    def find(path: Path) -> Fact | DataError:
        store = stores[path.parent]
        try:
            status = stat_regular(path, "image")
            stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            known = store.known.get(path.name)
            if known is not None and known[:STAMP] == stamp:
                kept = _unpacked(unpack, known[STAMP:])
                if kept is not None:
                    return kept
            begun = time.time_ns()
            fact = read(path)
        except DataError as error:
            return error
        if max(status.st_mtime_ns, status.st_ctime_ns) < begun - RACE:
            store.new[path.name] = [*stamp, *pack(fact)]
        return fact

    # Threads hide the latency of slow disks.
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(find, paths))
    for store in stores.values():
        store.save()
    return found


def _unpacked(unpack: Callable[[list[Any]], Fact], values: list[Any]) -> Fact | None:
    """Return what was kept; None for what this code did not write, so that the file is read."""
    try:
        return unpack(values)
    except (TypeError, ValueError) as error:
        logger.debug("passed over in the cache: %r (%s)", values, error)
        return None


class _Store:
    """The file of one folder and key."""

    def __init__(self, folder: Path, key: str) -> None:
        self.head = {"folder": os.path.abspath(folder), "key": key}
        name = hashlib.sha256(json.dumps(self.head).encode()).hexdigest()[:32]
        self.path = _cache_folder() / "files" / f"{name}.json"
        self.known = self._load()
        self.new: dict[str, list[Any]] = {}

    def _load(self) -> dict[str, list[Any]]:
        try:
            content = json.loads(self.path.read_bytes()) if self.path.is_file() else {}
        except (OSError, ValueError, RecursionError) as error:
            logger.debug("%s is read no more: %s", self.path, error)
            return {}
        if not isinstance(content, dict) or content.get("head") != self.head:
            return {}
        files = content.get("files")
        if not isinstance(files, dict):
            return {}
        return {name: each for name, each in files.items() if isinstance(each, list) and len(each) > STAMP}

    def save(self) -> None:
        if not self.new:
            return
        # Another process may have written since; the last one wins, and a loss only means that a file is read again.
        content = {"head": self.head, "files": {**self._load(), **self.new}}
        try:
            with write_whole(self.path) as temporary:
                temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        except OSError as error:
            logger.debug("%s is not written: %s", self.path, error)


def _cache_folder() -> Path:
    own = os.environ.get("CVPLUGINS_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cvplugins")

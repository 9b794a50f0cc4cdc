"""The checkpoints in a run's folder: the newest whole one to go on with, and none overwritten by a new run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import UserError
from .safe_loading import BrokenCheckpointError

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
POINTER = "last_checkpoint"
LONGEST_POINTER = 4096


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its checkpoints.

    Attributes:
        path: The run's folder, in which ``last_checkpoint`` names the newest one.
        numbered: Regular expression of the names of its checkpoints; the first group is how far the run was.
        others: Regular expression of the names of further files that a run writes, such as the best weights.
        checkpoint_dir: Where the checkpoints are; ``path`` if None.
    """

    path: Path
    numbered: str
    others: str
    checkpoint_dir: Path | None = None

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, the newest first.

        The one that ``last_checkpoint`` names comes first if none was written after it. The file is written after the
        checkpoint, so that after a crash it may be missing, empty, old or wrong; then the highest number counts.
        """
        matches = [(re.fullmatch(self.numbered, path.name), path.stat().st_mtime, path) for path in self._files()]
        found = [(int(match[1]), mtime, path) for match, mtime, path in matches if match and match[1]]
        # A name without a number is the last one's, until the run is made longer.
        for mtime, path in [(mtime, path) for match, mtime, path in matches if match and not match[1]]:
            before = [number for number, other, _ in found if other <= mtime]
            found.append((max(before, default=-1), mtime, path))
        ordered = [path for *_, path in sorted(found, reverse=True)]
        named = self._named()
        if named is not None and not any(mtime > named.stat().st_mtime for _, mtime, _ in found):
            return [named, *(path for path in ordered if path.resolve() != named.resolve())]
        return ordered

    def newest_whole(self, opened: Callable[[Path], T]) -> tuple[Path, T] | None:
        """Return the newest checkpoint that can be used, and what it holds; None if there is none at all.

        Args:
            opened: Opens one; raises ``BrokenCheckpointError`` if the one before should be taken.

        Raises:
            UserError: There are checkpoints, and none can be used.
        """
        candidates = self.checkpoints()
        problems = []
        for path in candidates:
            try:
                found = opened(path)
            except BrokenCheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                _log(logging.WARNING, "%s (passed over; the run goes on from %s)", problem, path.name)
            return path, found
        if not candidates:
            return None
        raise UserError(
            f"{self.path}: none of its {len(candidates)} checkpoints can be used ({problems[0]}). "
            "Begin anew with another --work-dir, or there with --overwrite"
        )

    def written(self) -> list[Path]:
        """Return the files that a new run in the same folder would overwrite or delete, by their names."""
        names = f"{self.numbered}|{self.others}"
        return sorted(path for path in self._files() if re.fullmatch(names, path.name))

    def check_free(self, start: str | os.PathLike[str] | None) -> None:
        """Raise unless a run that begins, or goes on with a checkpoint from elsewhere, overwrites nothing.

        Args:
            start: What the run goes on with, None if it begins.

        Raises:
            UserError: The folder has checkpoints of another run.
        """
        found = self.written()
        if not found or (start is not None and Path(start).resolve().parent in self._folders()):
            return
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UserError(
            f"work dir {self.path} has checkpoints of a run already ({found[-1].name}{more}): "
            "add --resume to go on with it, give another --work-dir, or delete them with --overwrite"
        )

    def clear(self, keep: Iterable[str | os.PathLike[str] | None]) -> None:
        """Delete the checkpoints of an earlier run.

        Args:
            keep: Files that are still needed.
        """
        kept = {Path(path).resolve() for path in keep if path}
        found = [path for path in self.written() if path.resolve() not in kept]
        Path(self.path, POINTER).unlink(missing_ok=True)
        for path in found:
            path.unlink()
        if found:
            logger.warning("deleted %d checkpoints of an earlier run in %s", len(found), self.path)

    def _folders(self) -> list[Path]:
        return sorted({folder.resolve() for folder in (self.path, self.checkpoint_dir or self.path)})

    def _files(self) -> list[Path]:
        return [path for folder in self._folders() if folder.is_dir() for path in folder.iterdir() if path.is_file()]

    def _named(self) -> Path | None:
        """Return the checkpoint that ``last_checkpoint`` names, None if it is no help."""
        pointer = self.path / POINTER
        if not pointer.is_file():
            return None
        with pointer.open("rb") as file:
            content = file.read(LONGEST_POINTER)
        try:
            named = Path(content.decode().strip() or ".")
            # A folder that was copied goes on with its own files, not with those of the run that it is a copy of.
            for candidate in (*(folder / named.name for folder in self._folders()), named):
                if candidate.is_file():
                    return candidate
        except (UnicodeDecodeError, OSError, ValueError):
            named = Path(".")
        _log(logging.WARNING, "%s names no checkpoint that is there; the newest whole one is looked for", pointer)
        return None


def _log(level: int, message: str, *values: object) -> None:
    """Log once, though every process of a launcher looks before they join."""
    if int(os.environ.get("RANK", 0)) == 0:
        logger.log(level, message, *values)

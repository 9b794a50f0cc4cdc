"""A JSON-lines file of what a run saw, that a resumed run continues where its checkpoint stands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cvplugins.distributed import gather_objects, rank
from cvplugins.files import write_whole

__all__ = ["Journal"]


class Journal:
    """Records with an ``"iteration"``, one JSON object a line; written by rank 0, known to all ranks.

    A checkpoint of mmengine is written before the validation of the same epoch, so that it does not hold what came
    of it: the journal does.

    Args:
        path: The file; it need not exist.

    Example:
        >>> import tempfile
        >>> journal = Journal(Path(tempfile.mkdtemp()) / "run.jsonl")
        >>> journal.append({"iteration": 10, "loss": 0.5})
        >>> journal.append({"iteration": 20, "loss": 0.4})
        >>> journal.rewind(10)
        [{'iteration': 10, 'loss': 0.5}]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; NaN and infinity are written as Python's ``json`` does."""
        if rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def rewind(self, iteration: int) -> list[dict[str, Any]]:
        """Drop what lies after ``iteration`` and return the rest; every rank has to call this.

        Rewinding to -1 empties the journal. A line that a killed process left half written is dropped too.
        """
        records = self._read(iteration) if rank() == 0 else []
        return gather_objects(records)[0]

    def _read(self, iteration: int) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        records = [record for record in map(_parse, self.path.read_text().splitlines()) if record]
        records = [record for record in records if record["iteration"] <= iteration]
        with write_whole(self.path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        return records


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "iteration" in record else None

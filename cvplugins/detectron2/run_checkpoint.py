"""Where a run starts: checkpoints found again, and refused if they are of another architecture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cvplugins.errors import UserError, first_line

from .checkpoint import CvpluginsCheckpointer

__all__ = ["RunCheckpointer", "check_exists", "last_checkpoint"]


class RunCheckpointer(CvpluginsCheckpointer):
    """A checkpointer that can insist on whole weights."""

    _incompatible: Any = None

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file, or an address that is fetched first.

        Raises:
            UserError: The file is missing, broken or not trusted, or the address cannot be reached.
        """
        if "://" in path:
            try:
                self.path_manager.get_local_path(path)
            except OSError as error:
                raise UserError(f"checkpoint {path} cannot be downloaded ({first_line(error)})") from error
        return super().load(path, *args, **kwargs)

    def load_whole(self, path: str | os.PathLike[str]) -> None:
        """Load the weights of a model of this architecture, and nothing else.

        Raises:
            UserError: A weight of the model is missing or has another shape. Detectron2 only logs that, and the score
                of a random layer is all that one sees.
        """
        check_exists(path)
        self.load(str(path), checkpointables=[])
        self.require_whole(path)

    def require_whole(self, path: str | os.PathLike[str]) -> None:
        """Raise ``UserError`` if what was loaded last did not fill the model."""
        found = self._incompatible
        problems = [f"{name} is missing" for name in found.missing_keys]
        problems += [f"{name} is {tuple(has)}, not {tuple(wants)}" for name, has, wants in found.incorrect_shapes]
        if problems:
            shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
            raise UserError(
                f"checkpoint {path} is of another architecture than the config: {shown}. "
                "Give the config that it was trained with (config.yaml in the work dir)"
            )

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._incompatible = super()._load_model(checkpoint)
        return self._incompatible


def check_exists(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` for a path where there is no file; addresses are not looked up."""
    if "://" not in str(path) and not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .pth or .pkl file")


def last_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Return the newest checkpoint of a run, None if there is none."""
    pointer = Path(folder, "last_checkpoint")
    path = pointer.with_name(pointer.read_text().strip()) if pointer.is_file() else None
    return str(path) if path is not None and path.is_file() else None

"""Checkpoints of a run: whole or absent, found again, and refused if they are of another architecture."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from cvplugins.errors import UserError
from cvplugins.files import write_whole

__all__ = ["RunCheckpointer"]

logger = logging.getLogger(__name__)

POINTER = "last_checkpoint"


class RunCheckpointer(DetectionCheckpointer):
    """A DetectionCheckpointer whose files are whole or absent whenever the process is killed.

    fvcore's (0.1.5) truncates the target before it writes, so that a killed process leaves half a file under the
    right name.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``{name}.pth`` with the model, all that is checkpointable and what else is given."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: each.state_dict() for key, each in self.checkpointables.items()}
        target = Path(self.save_dir, f"{name}.pth")
        with write_whole(target) as temporary:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, temporary)
        self.tag_last_checkpoint(target.name)
        logger.info("saved %s", target)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Remember the newest checkpoint."""
        with write_whole(Path(self.save_dir, POINTER)) as temporary:
            temporary.write_text(last_filename_basename)

    def load_whole(self, path: str | os.PathLike[str]) -> None:
        """Load the weights of a model of this architecture, and nothing else.

        Raises:
            UserError: A weight of the model is missing or has another shape. Detectron2 only logs that, and the score
                of a random layer is all that one sees.
        """
        if "://" not in str(path) and not Path(path).is_file():
            raise UserError(f"checkpoint {path} does not exist; give the path of a .pth or .pkl file")
        self._incompatible: Any = None
        self.load(str(path), checkpointables=[])
        found = self._incompatible
        problems = [f"{name} is missing" for name in found.missing_keys]
        problems += [f"{name} is {has} and should be {wants}" for name, has, wants in found.incorrect_shapes]
        if problems:
            shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
            raise UserError(f"checkpoint {path} is of another architecture than the config: {shown}")

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._incompatible = super()._load_model(checkpoint)
        return self._incompatible

"""Checkpoints of Detectron2: opened without running code from them, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from cvplugins.errors import UserError
from cvplugins.files import write_whole
from cvplugins.safe_loading import open_checkpoint

__all__ = ["CvpluginsCheckpointer"]


class CvpluginsCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, which runs no code from a file and leaves no half file behind.

    ``DetectionCheckpointer._load_file`` (detectron2/checkpoint/detection_checkpoint.py) unpickles whatever ``.pkl`` it
    is pointed at, and before torch 2.6 every ``.pth`` too: either can run anything. Here weights, arrays and plain
    containers are all that is taken. The formats are Detectron2's: those of its model zoo, of Caffe2 and of pycls, and
    its own checkpoints.

    Args:
        model: The model.
        save_dir: Where checkpoints are written.
        save_to_disk: Whether this process writes; the main process alone if None.
        trusted: Whether a file that holds more than plain data may be unpickled.
        checkpointables: What else is saved and loaded, see Detectron2's.

    Example::

        CvpluginsCheckpointer(model).load("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    """

    def __init__(
        self,
        model: Any,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        trusted: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.trusted = trusted

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file or address as Detectron2 does; nothing for an empty one.

        Raises:
            UserError: The file is missing, broken, or holds more than plain data and is not ``trusted``.
        """
        if path and "://" not in path and not Path(path.partition("?")[0]).is_file():
            raise UserError(f"checkpoint {path} does not exist; give the path of a .pth or .pkl file, or an address")
        try:
            return super().load(path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # Detectron2 leaves it after an error, and then loads nothing more

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name.pth`` as fvcore does (fvcore/common/checkpoint.py), but under a temporary name first."""
        if "://" in self.save_dir:
            super().save(name, **kwargs)
        elif self.save_dir and self.save_to_disk:
            states = {key: each.state_dict() for key, each in self.checkpointables.items()}
            with write_whole(Path(self.save_dir, f"{name}.pth")) as temporary:
                torch.save({"model": self.model.state_dict(), **states, **kwargs}, temporary)
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write down which checkpoint is the newest."""
        if "://" in self.save_dir:
            super().tag_last_checkpoint(last_filename_basename)
            return
        with write_whole(Path(self.save_dir, "last_checkpoint")) as temporary:
            temporary.write_text(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        # Detectron2's own opens these two kinds itself, and all others by _torch_load.
        if filename.endswith(".pkl"):
            return _of_pickle(open_checkpoint(filename, self.trusted))
        if filename.endswith(".pyth"):
            return _of_pycls(open_checkpoint(filename, self.trusted), filename)
        return super()._load_file(filename)

    def _torch_load(self, filename: str) -> dict[str, Any]:
        return open_checkpoint(filename, self.trusted)


def _of_pickle(data: dict[str, Any]) -> dict[str, Any]:
    if "model" in data and "__author__" in data:  # of Detectron2's model zoo
        return data
    blobs = data.get("blobs", data)  # detectors of Caffe2 have them, backbones do not
    weights = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _of_pycls(data: dict[str, Any], filename: str) -> dict[str, Any]:
    if "model_state" not in data:
        raise UserError(
            f"checkpoint {filename}: .pyth is the ending of pycls' checkpoints, but there is no model_state"
        )
    weights = {name: each for name, each in data["model_state"].items() if not name.endswith("num_batches_tracked")}
    return {"model": weights, "__author__": "pycls", "matching_heuristics": True}

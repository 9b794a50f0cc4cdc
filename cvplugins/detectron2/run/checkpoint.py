"""Checkpoints of Detectron2: opened without running code from them, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from cvplugins.errors import UserError
from cvplugins.files import write_whole
from cvplugins.run_folder import RunFolder
from cvplugins.safe_loading import BrokenCheckpointError, check_weights, open_checkpoint

__all__ = ["CvpluginsCheckpointer", "run_folder"]


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

    def has_checkpoint(self) -> bool:
        """Return whether there is something to resume, whatever ``last_checkpoint`` says."""
        if "://" in self.save_dir:
            return bool(super().has_checkpoint())
        return bool(run_folder(self.save_dir).checkpoints())

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on with the newest whole checkpoint if there is one, or load a file or address without its state.

        Detectron2's begins anew if ``last_checkpoint`` is missing, and overwrites what there is.

        Raises:
            UserError: There are checkpoints, and none is whole.
        """
        if not resume or "://" in self.save_dir:
            return super().resume_or_load(path, resume=resume)
        newest = run_folder(self.save_dir).newest_whole(self._opened_to_resume)
        return self.load(path, checkpointables=[]) if newest is None else self.load(str(newest[0]))

    def _opened_to_resume(self, path: Path) -> None:
        open_checkpoint(path, self.trusted)

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
            loaded = _of_pickle(open_checkpoint(filename, self.trusted), filename)
        elif filename.endswith(".pyth"):
            loaded = _of_pycls(open_checkpoint(filename, self.trusted), filename)
        else:
            loaded = super()._load_file(filename)
        check_weights(loaded["model"], f"checkpoint {filename}: model")
        return loaded

    def _torch_load(self, filename: str) -> dict[str, Any]:
        found = open_checkpoint(filename, self.trusted)
        if "model" not in found and isinstance(found.get("state_dict"), Mapping):
            raise UserError(
                f"checkpoint {filename}: its weights are under state_dict, as other frameworks write them; Detectron2 "
                "reads those under model, by its own names"
            )
        return found


def run_folder(path: str | os.PathLike[str]) -> RunFolder:
    """Return the checkpoints of a run, as Detectron2's PeriodicCheckpointer names them."""
    return RunFolder(Path(path), r"model_(?:(\d+)|final)\.pth", r"(?:model_best|model_ema|best_weights)\.pth")


def _of_pickle(data: dict[str, Any], filename: str) -> dict[str, Any]:
    if "model" in data and "__author__" in data:  # of Detectron2's model zoo
        return data
    blobs = data.get("blobs", data)  # detectors of Caffe2 have them, backbones do not
    source = f"checkpoint {filename}" + (": blobs" if "blobs" in data else "")
    if not isinstance(blobs, dict) or not all(isinstance(name, str) for name in blobs):
        raise BrokenCheckpointError(f"{source} is no dict of weights by their names")
    weights = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _of_pycls(data: dict[str, Any], filename: str) -> dict[str, Any]:
    if "model_state" not in data:
        raise UserError(
            f"checkpoint {filename}: .pyth is the ending of pycls' checkpoints, but there is no model_state"
        )
    check_weights(data["model_state"], f"checkpoint {filename}: model_state")
    weights = {name: each for name, each in data["model_state"].items() if not name.endswith("num_batches_tracked")}
    return {"model": weights, "__author__": "pycls", "matching_heuristics": True}

"""Keep the weights of the best evaluation in a file, and put them back on every rank."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cvplugins.distributed import gather_objects, is_distributed, rank
from cvplugins.files import write_whole
from cvplugins.safe_loading import load_plain

__all__ = ["BestWeights"]


class BestWeights:
    """A checkpoint without optimizer: ``{"state_dict": ..., "meta": ...}``, written by rank 0.

    That is OpenMMLab's form; with ``key="model"`` it is Detectron2's.

    For models that are whole on every rank; not for sharded ones.

    Args:
        path: The file.
        key: Under which the weights lie in it.

    Example:
        >>> import tempfile
        >>> best, model = BestWeights(Path(tempfile.mkdtemp()) / "best.pth"), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)
        >>> best.keep(model, iteration=7)
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> best.restore(model), model.weight.item()
        ({'iteration': 7}, 2.0)
    """

    def __init__(self, path: str | os.PathLike[str], key: str = "state_dict") -> None:
        self.path = Path(path)
        self.key = key

    def keep(self, model: nn.Module, **meta: Any) -> None:
        """Write the weights as they are now; an old file is replaced by a whole new one."""
        if rank() == 0:
            with write_whole(self.path) as temporary:
                torch.save({"meta": meta, self.key: model.state_dict()}, temporary)

    def discard(self) -> None:
        """Delete the file of an earlier run."""
        if rank() == 0:
            self.path.unlink(missing_ok=True)

    def restore(self, *models: nn.Module) -> dict[str, Any]:
        """Put the weights into each of ``models`` on every rank; every rank has to call this.

        Returns:
            The ``meta`` that was kept with them.

        Raises:
            RuntimeError: The file cannot be read or does not fit; raised on every rank.
        """
        meta, error = {}, ""
        if rank() == 0:
            try:
                checkpoint = load_plain(self.path)
                for model in models:
                    model.load_state_dict(checkpoint[self.key])
                meta = checkpoint["meta"]
            except Exception as caught:  # whatever it is, the other ranks wait for it
                error = f"the best weights in {self.path} cannot be restored: {caught}"
        meta, error = gather_objects((meta, error))[0]
        if error:
            raise RuntimeError(error)
        for model in models:
            _copy_from_first_rank(model)
        return meta


def _copy_from_first_rank(model: nn.Module) -> None:
    if not is_distributed():
        return
    for tensor in model.state_dict().values():
        if isinstance(tensor, torch.Tensor):
            whole = tensor.detach().contiguous()  # collectives want no channels-last
            dist.broadcast(whole, src=0)
            tensor.copy_(whole)

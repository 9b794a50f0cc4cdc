"""What ``cvplugins convert-weights`` does: one framework's checkpoint file into the other's."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from cvplugins.errors import UserError
from cvplugins.files import check_weights_out, write_whole
from cvplugins.safe_loading import check_weights, open_checkpoint

from .faster_rcnn import convert_weights

__all__ = ["convert_checkpoint"]

# Where the checkpoints of each framework hold the weights.
KEYS = {"mmdet": "state_dict", "detectron2": "model"}


def convert_checkpoint(
    source_file: str | os.PathLike[str],
    target_file: str | os.PathLike[str],
    *,
    source: str,
    target: str,
    trusted: bool = False,
) -> str:
    """Write the weights of a checkpoint as the other framework loads them; return what was done.

    Only the weights go over: optimizer, schedule and iteration have no counterpart.

    Args:
        source_file: ``.pth``, or ``.pkl`` of Detectron2's model zoo.
        target_file: ``.pth``.
        source: See :func:`convert_weights`.
        target: See :func:`convert_weights`.
        trusted: Whether a file that holds more than plain data may be unpickled.

    Raises:
        UserError: The file cannot be opened, or its weights are not known.
    """
    check_weights_out(target_file)
    checkpoint = open_checkpoint(source_file, trusted, _LOG_HISTORY)
    weights = checkpoint.get(KEYS.get(source, ""), checkpoint)
    if weights is not checkpoint:
        check_weights(weights, f"checkpoint {source_file}: {KEYS[source]}")
    try:
        converted = convert_weights(weights, source=source, target=target)
    except UserError as error:
        raise UserError(f"checkpoint {source_file}: {error}") from error
    tensors = {name: _as_tensor(value) for name, value in converted.items()}
    with write_whole(target_file) as temporary:
        torch.save(_checkpoint(tensors, target), temporary)
    return f"wrote {target_file}: {len(tensors)} weights and buffers; docs/weights.md says what else must be equal"


def _checkpoint(weights: dict[str, torch.Tensor], target: str) -> dict[str, Any]:
    # mmengine wants the meta, and Detectron2 asks who wrote a file.
    beside: dict[str, Any] = {"meta": {}} if target == "mmdet" else {"__author__": "cvplugins"}
    return {KEYS[target]: weights, **beside}


def _as_tensor(value: Any) -> torch.Tensor:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class _LogHistory:
    """Stands for the log history in mmdet's checkpoints, so that they can be opened without mmengine."""


def _no_statistic(owner: type, name: str) -> None:
    """Stand for the ``getattr`` by which the log history names its methods."""


# The unpickler goes by these names.
_LogHistory.__module__, _LogHistory.__qualname__ = "mmengine.logging.history_buffer", "HistoryBuffer"
_no_statistic.__module__, _no_statistic.__qualname__ = "builtins", "getattr"
_LOG_HISTORY = (_LogHistory, _no_statistic)

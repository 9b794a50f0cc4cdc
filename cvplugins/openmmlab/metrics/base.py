"""What the metrics of mmengine have in common: the core computes; log, JSON and figures come from its result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from cvplugins.reporting import result_table, write_results

__all__ = ["PluginMetric", "as_array"]


class PluginMetric(BaseMetric):
    """mmengine's BaseMetric, which also writes its whole result to files.

    A subclass appends one state an image to ``self.results``, so that ``BaseMetric`` can drop what a sampler
    padded; its ``compute_metrics`` merges them, and hands the result to :meth:`report`.

    Args:
        out_dir: Folder for the files; the hook ``cvplugins.ResultFilesHook`` sets it to the run's log folder.
            No files if None.
        collect_device: Where the states of all ranks are gathered, ``"cpu"`` or ``"gpu"``.
        prefix: First part of the keys in the log.
    """

    def __init__(
        self, out_dir: str | os.PathLike | None = None, collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.out_dir = out_dir
        self.written: dict[str, Path] = {}

    def names(self) -> list[str] | None:
        """Return the names of the numbers that this metric can give, without prefix; None if they are not known.

        They are those of the core's metric of no image, where all are undefined.
        """
        return None

    def report(self, result: Any, settings: Mapping[str, Any] | None = None) -> None:
        """Log a table of the result, and write it as JSON with its figures as PNG and SVG.

        Args:
            result: Of a type in :data:`cvplugins.reporting.REPORTS`.
            settings: Options that the result does not know, for the JSON file.
        """
        MMLogger.get_current_instance().info(f"\n{result_table(result)}")
        if self.out_dir is not None:
            self.written = write_results(result, self.out_dir, str(self.prefix), settings)


def as_array(values: Any) -> np.ndarray:
    """Return a tensor of any device and type, or mmdet's boxes, as an array."""
    values = getattr(values, "tensor", values)  # mmdet's HorizontalBoxes hold one
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values)

"""Check the data of a config and tell all findings; what ``cvplugins data check CONFIG`` calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from cvplugins.datasets.findings import Findings
from cvplugins.detectron2.run.config import load_config

from .catalog import register_datasets
from .checks import examine_data

__all__ = ["examine_config"]


def examine_config(
    config: str | os.PathLike[str], options: Mapping[str, Any], findings: Findings, full: bool = False
) -> dict[str, list[Path]]:
    """Check the datasets that a config names, as the dry run does.

    Args:
        config: A config file.
        options: Dotted keys and their new values.
        findings: Where to put what is found.
        full: Whether to decode every image.

    Returns:
        The images of training and test, as far as the datasets can be loaded.

    Raises:
        UserError: The config cannot be read.
    """
    cfg = load_config(config, options)
    register_datasets(cfg)
    examine_data(cfg, (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), full, findings.step)
    return {f"DATASETS.{key}": _images(cfg, key) for key in ("TRAIN", "TEST")}


def _images(cfg: CfgNode, key: str) -> list[Path]:
    """Return the images of datasets; none of those that cannot be loaded, which the check names."""
    paths: dict[Path, None] = {}
    for name in cfg.DATASETS[key]:
        try:
            records = DatasetCatalog.get(name)
        except Exception:  # the function may be anyone's
            continue
        paths.update(dict.fromkeys(Path(each["file_name"]) for each in records if each.get("file_name")))
    return list(paths)

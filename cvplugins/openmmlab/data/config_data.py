"""Check the data of a config and tell all findings; what ``cvplugins data check CONFIG`` calls."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from cvplugins.datasets.findings import Findings
from cvplugins.openmmlab.run.config import load_config

from .checks import examine_data
from .dataset_nodes import dataset_nodes

__all__ = ["examine_config"]

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def examine_config(
    config: str | os.PathLike[str], options: Mapping[str, Any], findings: Findings, full: bool = False
) -> dict[str, list[Path]]:
    """Check what a config's loaders read, as the dry run does.

    Args:
        config: A config file.
        options: Dotted keys and their new values.
        findings: Where to put what is found.
        full: Whether to decode every image.

    Returns:
        The images of each loader, as far as its datasets can be loaded.

    Raises:
        UserError: The config cannot be read.
    """
    cfg = load_config(config, options)
    loaders = tuple(loader for loader in LOADERS if cfg.get(loader))
    with tempfile.TemporaryDirectory() as lists:
        cfg.work_dir = lists
        examine_data(cfg, loaders, full, lists, findings.step).apply(cfg, loaders)
        return {loader: _images(cfg, loader) for loader in loaders}


def _images(cfg: Config, loader: str) -> list[Path]:
    """Return the images that a loader's datasets name; none of those that cannot be loaded, which the check names."""
    if cfg.get("default_scope"):
        init_default_scope(cfg.default_scope)
    paths: dict[Path, None] = {}
    for dataset in dataset_nodes(cfg, loader):
        if not dataset.is_local:
            continue
        with DATASETS.switch_scope_and_registry(None) as registry:
            try:
                built = registry.build(ConfigDict(dataset.node, pipeline=[]))
                infos = [built.get_data_info(index) for index in range(len(built))]
            except Exception:  # the class may be anyone's
                continue
        paths.update(dict.fromkeys(Path(info["img_path"]) for info in infos if info.get("img_path")))
    return list(paths)

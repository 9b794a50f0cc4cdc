"""Feed a config's own ground truth, as training has it, to its evaluator: what ``cvplugins data prove`` calls."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from cvplugins.datasets.proving import Proof
from cvplugins.errors import UserError
from cvplugins.openmmlab.run.config import load_config, walk_dicts
from cvplugins.samples.drawing import draw_missing

from .counterparts import nearest
from .dataset_nodes import dataset_nodes
from .prove_boxes import BoxProof
from .prove_labels import LabelProof

__all__ = ["prove", "prove_config"]


def prove(
    config: str | os.PathLike[str], cfg_options: Mapping[str, Any] | None = None, images: int | None = None
) -> Proof:
    """Return what a perfect prediction gets, and at which step it is lost.

    Args:
        config: Config file.
        cfg_options: Changes to it.
        images: At most so many of each data set, evenly over all; all if None.

    Raises:
        UserError: Something is wrong that keeps data or evaluator from working at all.
    """
    return prove_config(load_config(config, cfg_options), images)


def prove_config(cfg: Config, images: int | None = None) -> Proof:
    """Do the same for a config that is loaded."""
    for root in {str(node["data_root"]) for node in walk_dicts(dict(cfg)) if node.get("data_root")}:
        draw_missing(root)
    scope = cfg.get("default_scope")
    init_default_scope(scope or "mmengine")
    job = next((each for each in ("val", "test") if cfg.get(f"{each}_dataloader") and cfg.get(f"{each}_evaluator")), "")
    if not job or not cfg.get("train_dataloader"):
        raise UserError("the config needs train_dataloader, and val_dataloader with val_evaluator, to prove anything")
    kinds = {"mmdet": BoxProof, "mmseg": LabelProof}
    if scope not in kinds:
        raise UserError(f"default_scope is {scope!r}; the proof is for configs of {' and '.join(kinds)}")
    proof = Proof()
    run: Any = kinds[scope](cfg, proof, images)
    tested = list(dataset_nodes(cfg, f"{job}_dataloader"))
    if not tested:
        raise UserError(f"the config has no {job}_dataloader.dataset")
    run.evaluate(job, [(each, nearest(cfg, "train_dataloader", each)) for each in tested])
    for each in _several(cfg):
        run.compare_training(each, nearest(cfg, f"{job}_dataloader", each))
    return proof


def _several(cfg: Config) -> Iterator[Any]:
    """Yield the datasets of training, each once, also where a config repeats one."""
    seen = []
    for each in dataset_nodes(cfg, "train_dataloader"):
        if each.node not in seen:
            seen.append(each.node)
            yield each

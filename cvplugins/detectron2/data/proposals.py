"""Files of proposals, which Detectron2 unpickles: opened first without running code from them."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.structures import BoxMode

from cvplugins.errors import UserError, first_line
from cvplugins.plain_pickle import NotPlainError
from cvplugins.safe_loading import load_plain_pickle

__all__ = ["check_proposals"]


def check_proposals(cfg: CfgNode, trusted: bool = False) -> None:
    """Open the files of ``DATASETS.PROPOSAL_FILES_TRAIN`` and ``_TEST`` if the model takes proposals.

    Detectron2's ``load_proposals_into_dataset`` (detectron2/data/build.py) runs whatever such a file holds.

    Raises:
        UserError: One is missing, broken, or holds more than plain data and is not ``trusted``.
    """
    for key in ("PROPOSAL_FILES_TRAIN", "PROPOSAL_FILES_TEST") if cfg.MODEL.LOAD_PROPOSALS else ():
        for path in map(Path, cfg.DATASETS[key]):
            if not path.is_file():
                raise UserError(f"DATASETS.{key}: {path} does not exist")
            try:
                found = load_plain_pickle(path, [BoxMode])
            except NotPlainError as error:
                if trusted:
                    continue
                raise UserError(
                    f"DATASETS.{key}: {path} holds more than boxes and scores ({error.what}); loading it could run "
                    "code from the file. If you trust its author, add --trust-checkpoint"
                ) from error
            except Exception as error:  # the bytes of another kind of file make unpicklers raise anything
                raise UserError(f"DATASETS.{key}: {path} cannot be read ({first_line(error)})") from error
            wanted = {"boxes", "objectness_logits"}
            if not isinstance(found, dict) or not wanted <= set(found) or not {"ids", "indexes"} & set(found):
                raise UserError(f"DATASETS.{key}: {path} is no dict with ids, boxes and objectness_logits")

"""The data of the configs that come with cvplugins, looked at before a framework is imported, which takes seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

from cvplugins.config_bases import first_literal
from cvplugins.config_files import config_names
from cvplugins.errors import UserError
from cvplugins.samples.folders import FOLDERS

__all__ = ["check_own_data", "check_voc_files"]

ROOT_KEYS = ("data_root", "CVPLUGINS.DATA.ROOT")
VOC_SPLITS = (("VOC2007", "trainval"), ("VOC2012", "trainval"), ("VOC2007", "test"))
YAML_ROOT = re.compile(r"DATA:\s*\{?\s*ROOT:\s*([^\s,}]+)")
# Options that leave the data as it is; with any other one the framework's own check has to decide.
NEUTRAL = ("model", "optim_wrapper", "param_scheduler", "train_cfg", "randomness", "MODEL", "SOLVER", "INPUT", "SEED")
MOST = 1000  # annotations that are worth a look here; the check of the data reads all of them


def check_own_data(job: str, config: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Look for the data of a config of ours: its folder, its lists, and XML that cannot be parsed.

    Args:
        job: ``"train"`` or ``"evaluate"``, which reads the test set alone.
        config: A config; one that does not come with cvplugins, or whose data the options change, is passed over.
        options: Dotted keys and values of the command line.

    Raises:
        UserError: The data is missing, or a list or an annotation is broken.
    """
    names = {path.resolve(): name for name, path in config_names().items()}
    name = names.get(Path(config).resolve())
    others = [key for key in options if key not in ROOT_KEYS and key.partition(".")[0] not in NEUTRAL]
    if name is None or others:
        return
    given = [str(options[key]) for key in ROOT_KEYS if options.get(key)]
    is_voc = "voc" in name
    root = Path(given[0] if given else _root(Path(config), is_voc))
    if "://" in str(root) or (root in FOLDERS.values() and not root.exists()):  # a sample is drawn
        return
    if is_voc:
        check_voc_files(root, VOC_SPLITS if job == "train" else VOC_SPLITS[-1:])
        return
    images = root / "images" / ("training" if job == "train" else "validation")
    if not images.is_dir():
        from cvplugins.datasets.ade20k import HOW_TO_GET_ADE20K

        raise UserError(f"folder {images.absolute()} does not exist. {HOW_TO_GET_ADE20K}")


def check_voc_files(devkit: Path, splits: Sequence[tuple[str, str]]) -> None:
    """Raise ``UserError`` for a folder, list or annotation of VOC's layout that is missing or cannot be parsed."""
    from cvplugins.datasets.voc import check_voc, read_split

    for year, split in splits:
        if not (devkit / year / "Annotations").is_dir():
            check_voc(devkit, [(year, split)])  # says which folder, and how to get it
        for image_id in read_split(devkit, year, split)[:MOST]:
            _check_xml(devkit / year / "Annotations" / f"{image_id}.xml")


def _check_xml(path: Path) -> None:
    if not path.is_file():
        return  # the check of the data says it, with all the others
    try:
        expat.ParserCreate().Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        problem = f"malformed XML, {expat.ErrorString(error.code)}"
        raise UserError(f"{path}, line {error.lineno}: {problem}") from error
    except (OSError, LookupError, ValueError):  # the check of the data has words for it
        return


def _root(config: Path, is_voc: bool) -> str:
    if config.suffix == ".py":
        named = first_literal(config, "data_root")
    else:
        found = YAML_ROOT.search(config.read_text())
        named = found[1] if found else os.environ.get("DETECTRON2_DATASETS")
        if not found and named and not is_voc:
            named = os.path.join(named, "ADEChallengeData2016")
    default = "data/VOCdevkit" if is_voc else "data/ADEChallengeData2016"
    return str(named or default)

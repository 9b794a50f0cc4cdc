"""Which framework a config is for, and a job in it, after every check that needs no framework."""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cvplugins.config_bases import check_bases
from cvplugins.config_files import SUFFIXES, check_syntax, find_config
from cvplugins.errors import UserError
from cvplugins.paths import check_folder, check_source, is_address

from .own_data import check_own_data

if TYPE_CHECKING:
    from cvplugins.datasets.findings import Findings

__all__ = [
    "Framework",
    "add_common_arguments",
    "check_checkpoint",
    "check_checkpoint_file",
    "check_config_data",
    "check_seed",
    "existing_config",
    "framework_of",
    "require_framework",
    "run_job",
]


LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


class Framework(NamedTuple):
    """A framework that trains and tests.

    Attributes:
        adapter: The package of ours that plugs into it; its module ``launch`` has the jobs, and ``options`` reads the
            changes to a config.
        packages: What has to be installed, by the names that are imported.
        install: How.
    """

    adapter: str
    packages: tuple[str, ...]
    install: str


OPENMMLAB = Framework(
    "cvplugins.openmmlab", ("mmengine", "mmcv", "mmdet", "mmseg"), "pip install 'cvplugins[openmmlab]'"
)
DETECTRON2 = Framework(
    "cvplugins.detectron2",
    ("detectron2", "fvcore", "yacs"),
    'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2"',
)


def framework_of(config: str | os.PathLike[str]) -> Framework:
    """Return the framework that a config is written for: Detectron2's end in .yaml, OpenMMLab's in .py.

    >>> framework_of("configs/detectron2/voc_faster_rcnn_sample.yaml").adapter
    'cvplugins.detectron2'
    """
    return DETECTRON2 if Path(config).suffix in (".yaml", ".yml") else OPENMMLAB


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that OpenMMLab's own tools have in common, and ours."""
    parser.add_argument("--work-dir", help="folder for checkpoints, logs and results; work_dirs/<config> if absent")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], help="KEY=VALUE pairs for the config")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # old launchers give it
    parser.add_argument("--trust-checkpoint", action="store_true", help="let a checkpoint run code when it is loaded")
    parser.add_argument("--dry-run", action="store_true", help="check config, plugins, data and checkpoint, and stop")
    parser.add_argument("--full", action="store_true", help="with --dry-run: decode every image, not only its header")


def existing_config(path_or_name: str) -> str:
    """Return the path of a config that exists, as its bases do, and that can be parsed if it is Python."""
    path = find_config(path_or_name)
    if path.suffix not in (*SUFFIXES, ".json"):  # mmengine reads JSON too
        raise UserError(f"config {path}: its name must end in .py for OpenMMLab, or in .yaml for Detectron2")
    if path.suffix == ".py":
        check_syntax(path)
    check_bases(path)
    return str(path)


def check_checkpoint(path: str) -> None:
    """Raise ``UserError`` for a path where there is no file, or an address that is none; nothing is looked up."""
    check_source(path, "checkpoint", "give the path of a .pth file")


def check_checkpoint_file(path: str) -> None:
    """Raise ``UserError`` unless there is a file."""
    if is_address(path):
        raise UserError(f"checkpoint {path} is an address; download the file and give its path")
    check_checkpoint(path)


def check_seed(seed: int | None) -> None:
    """Raise ``UserError`` for a seed that NumPy's generators do not take."""
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"--seed {seed}: expected a number from 0 to {LARGEST_SEED}; without it one is drawn")


def run_job(job: str, arguments: argparse.Namespace) -> int:
    """Do a job in the config's framework, and print what it returns, on the first process.

    Args:
        job: ``"train"`` or ``"evaluate"``.
        arguments: ``config``, an existing file, the common arguments, and those of the job, which it takes by name.

    Returns:
        The exit code 0.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    options = dict(vars(arguments))
    if options["full"] and not options["dry_run"]:
        raise UserError("--full decodes every image once, for a check alone: add --dry-run")
    del options["local_rank"]
    if options["work_dir"] is not None:
        check_folder(options["work_dir"], "--work-dir")
    framework = framework_of(options["config"])
    require_framework(framework)
    parse = importlib.import_module(f"{framework.adapter}.run.options").parse_options
    options["cfg_options"] = parse(options["cfg_options"])
    check_own_data(job, options["config"], options["cfg_options"])
    launch: Any = importlib.import_module(f"{framework.adapter}.run.launch")
    if not gc.get_freeze_count():
        gc.freeze()  # mmengine collects garbage for every dataset: a third of a second among all that was imported
    summary = getattr(launch, job)(**options)
    if int(os.environ.get("RANK", 0)) == 0:
        sys.stdout.write(f"{summary}\n")
    return 0


def check_config_data(config: str, options: Sequence[str], findings: Findings, full: bool) -> dict[str, list[Path]]:
    """Check the data of a config in its framework, and return the images of each of its parts.

    Args:
        config: An existing file.
        options: ``KEY=VALUE`` pairs.
        findings: Where to put what is found.
        full: Whether to decode every image.

    Raises:
        UserError: The framework is missing, or the config cannot be read.
    """
    framework = framework_of(config)
    require_framework(framework)
    parse = importlib.import_module(f"{framework.adapter}.run.options").parse_options
    adapter: Any = importlib.import_module(f"{framework.adapter}.data.config_data")
    found: dict[str, list[Path]] = adapter.examine_config(config, parse(options), findings, full)
    return found


def require_framework(framework: Framework) -> None:
    """Raise ``UserError`` if a package is missing; found without importing any."""
    for package in framework.packages:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:  # a folder of this name is none
            raise UserError(f"this config needs {package}, which is not installed: {framework.install}")

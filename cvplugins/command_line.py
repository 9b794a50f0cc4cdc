"""What the command lines of the tools share: options, and which framework a config is for."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvplugins.errors import UserError

__all__ = ["Framework", "add_common_arguments", "framework_of", "run", "run_without_framework"]


@dataclass(frozen=True)
class Framework:
    """A framework that trains and tests.

    Attributes:
        adapter: The package of ours that plugs into it; its module ``launch`` has the jobs.
        packages: What has to be installed, by the names that are imported.
        install: How.
    """

    adapter: str
    packages: tuple[str, ...]
    install: str


OPENMMLAB = Framework(
    "cvplugins.openmmlab",
    ("mmengine", "mmcv", "mmdet", "mmseg"),
    "pip install 'cvplugins[openmmlab]' (the README has the order in which torch and mmcv have to be installed)",
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


def run(job: str, parser: argparse.ArgumentParser) -> int:
    """Do a job in the config's framework with the arguments, and print what it returns, on the first process.

    Args:
        job: ``"train"`` or ``"evaluate"``.
        parser: Has ``config`` and the arguments of the job.

    Returns:
        The exit code: 0, or 2 for a mistake that the user can mend.
    """
    arguments = vars(parser.parse_args())
    arguments.pop("local_rank")
    try:
        launch = _import_launch(framework_of(arguments["config"]))
        arguments["cfg_options"] = launch.parse_options(arguments["cfg_options"])
        summary = getattr(launch, job)(**_accepted(arguments, getattr(launch, job)))
    except UserError as error:
        if _is_first():
            sys.stderr.write(f"error: {error}\n")
        return 2
    if _is_first():
        sys.stdout.write(f"{summary}\n")
    return 0


def run_without_framework(job: Callable[..., str], parser: argparse.ArgumentParser) -> int:
    """Call ``job`` with the arguments, and print what it returns; see :func:`run` for the exit code."""
    try:
        summary = job(**vars(parser.parse_args()))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{summary}\n")
    return 0


def _accepted(arguments: dict[str, Any], job: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that a job knows; one that it does not know must not have been given."""
    known = inspect.signature(job).parameters
    for name, value in arguments.items():
        if name not in known and value:
            option, config = name.replace("_", "-"), arguments["config"]
            raise UserError(f"--{option} is not there for the framework of config {config}; leave it out")
    return {name: value for name, value in arguments.items() if name in known}


def _import_launch(framework: Framework) -> Any:
    try:
        return importlib.import_module(f"{framework.adapter}.launch")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in framework.packages:
            raise
        raise UserError(f"this config needs {missing}, which is not installed: {framework.install}") from error


def _is_first() -> bool:
    # Slurm's and MPI's ranks get this variable only when the processes have joined.
    return int(os.environ.get("RANK", 0)) == 0

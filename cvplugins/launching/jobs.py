"""What can be asked of a training and of a test: the same in both frameworks, and checked once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvplugins.errors import UserError
from cvplugins.files import check_out
from cvplugins.paths import check_folder

__all__ = ["Evaluation", "Training"]


@dataclass(frozen=True, kw_only=True)
class _Job:
    config: str | os.PathLike[str]
    work_dir: str | None = None
    cfg_options: Mapping[str, Any] | None = None
    launcher: str = "none"
    trust_checkpoint: bool = False
    dry_run: bool = False
    full: bool = False


@dataclass(frozen=True, kw_only=True)
class Training(_Job):
    """A training with the evaluation at its end.

    Args:
        config: Config file.
        work_dir: Where everything is written; if None what the config says, else ``work_dirs/<config name>``.
        resume: A checkpoint, or ``"auto"`` for the newest whole one in the work dir; what the config says if None.
        overwrite: Whether to delete the checkpoints of an earlier run in the work dir; else a new run is refused there.
        amp: Train in mixed precision (GPU only).
        auto_scale_lr: Scale the learning rate by the real batch size over the one that the config's is meant for.
        seed: Seed of all randomness; the config's if None.
        cfg_options: Dotted config keys and their new values.
        launcher: ``"none"``, ``"pytorch"`` (torchrun), or in OpenMMLab ``"slurm"`` or ``"mpi"``.
        trust_checkpoint: Allow a checkpoint to run code while it is loaded.
        dry_run: Check the config, the plugins, the data and the checkpoint, and train nothing.
        full: Decode every image for the check; else only headers are read.

    Raises:
        UserError: Options contradict each other.
    """

    resume: str | None = None
    overwrite: bool = False
    amp: bool = False
    auto_scale_lr: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        self.check_start(self.resume)

    def check_start(self, resume: str | None) -> None:
        """Raise ``UserError`` if a run that resumes is to begin anew.

        Args:
            resume: What is resumed, by the option or by the config.
        """
        if self.overwrite and resume:
            raise UserError("--overwrite begins anew and --resume goes on: give one of them")

    @property
    def is_fine(self) -> str:
        """What a dry run ends with."""
        return f"config, plugins and data of {self.config} are fine"


@dataclass(frozen=True, kw_only=True)
class Evaluation(_Job):
    """A test of a checkpoint.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or its address; its weights must be those of the config's model.
        out: ``X.json`` for the metrics, or ``X.pkl`` for the predictions in the form of OpenMMLab's own dump.
        show_dir: Where images with the predictions are drawn.
        label_dir: Where predictions are written as PNG label maps, as the benchmark's server takes them.
        mode: ``"whole"`` or ``"slide"``, whether mmseg's models see images whole or in windows; the config's if None.
        scales: Sizes over which mmseg's models and Mask2Former average, as factors of the test's size.
        flip: Whether they average with the mirrored image.
        work_dir: Where everything is written; if None what the config says, else ``work_dirs/<config name>``.
        cfg_options: Dotted config keys and their new values.
        launcher: ``"none"``, ``"pytorch"`` (torchrun), or in OpenMMLab ``"slurm"`` or ``"mpi"``.
        trust_checkpoint: Allow the checkpoint to run code while it is loaded.
        dry_run: Check the config, the plugins, the data and the checkpoint, and evaluate nothing.
        full: Decode every image for the check; else only headers are read.

    Raises:
        UserError: Something cannot be written.
    """

    checkpoint: str | os.PathLike[str]
    out: str | None = None
    show_dir: str | None = None
    label_dir: str | None = None
    mode: str | None = None
    scales: Sequence[float] | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        check_out(self.out)
        for folder, option in ((self.show_dir, "--show-dir"), (self.label_dir, "--label-dir")):
            if folder is not None:
                check_folder(folder, option)

    @property
    def dumps(self) -> bool:
        """Whether predictions are written, not metrics."""
        return self.out is not None and not self.out.endswith(".json")

    @property
    def is_fine(self) -> str:
        """What a dry run ends with."""
        return f"config, plugins, data and checkpoint of {self.config} are fine"

"""Train and test with CvpluginsTrainer: what ``cvplugins train`` and ``cvplugins test`` call for a .yaml config."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from torch import nn

from cvplugins.detectron2.data.catalog import register_datasets
from cvplugins.detectron2.data.checks import check_data
from cvplugins.detectron2.data.image_failures import UndecodableError
from cvplugins.detectron2.data.proposals import check_proposals
from cvplugins.detectron2.hooks.early_stopping import TrainingStopped
from cvplugins.detectron2.hooks.named import build_cvplugins_hooks
from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.detectron2.mask2former.test_time import use_inference, with_several_sizes
from cvplugins.detectron2.metrics.predictions import DrawPredictions, DumpPredictions, WriteLabelMaps
from cvplugins.distributed import first_rank_does
from cvplugins.errors import UserError
from cvplugins.files import hand_over, kept_copy, sweep_unfinished, write_whole
from cvplugins.launching import Evaluation, Training
from cvplugins.monitors import EarlyStoppingMonitor
from cvplugins.paths import check_folder, check_source, is_address
from cvplugins.reporting import summary_lines, write_metrics
from cvplugins.run_lock import check_unlocked, locked

from .building import refusals_named
from .checkpoint import run_folder
from .config import load_config, own_keys
from .config_node import validate_cvplugins_config
from .metric_names import check_monitors
from .processes import joined_processes
from .resume_checks import (
    RunCheckpointer,
    check_exists,
    check_optimizer,
    is_at_hand,
    last_checkpoint,
    loading_explained,
    open_for_resume,
)
from .trainer import CvpluginsTrainer
from .trial import trial_evaluation, trial_training
from .values import check_values

__all__ = ["evaluate", "train"]

logger = logging.getLogger(__name__)

WRITTEN = ("config.yaml", "last_checkpoint", "log.txt", "metrics.json", "model_final.pth")


def train(config: str | os.PathLike[str], **options: Any) -> str:
    """Train, evaluate and return a summary for people.

    Args:
        config: Config file.
        options: Those of :class:`~cvplugins.launching.Training`.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    job = Training(config=config, **options)
    cfg = _load(config, job.work_dir, job.cfg_options)
    cfg.SOLVER.AMP.ENABLED |= job.amp
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise UserError("--amp (SOLVER.AMP.ENABLED) needs a GPU; leave it out, or set the key to False, for the CPU")
    if job.auto_scale_lr:
        _use_scaled_lr(cfg)
    if job.seed is not None:
        cfg.SEED = job.seed
    _require(cfg, config, "TRAIN")
    if job.resume is None and cfg.MODEL.WEIGHTS:
        path, mark, query = cfg.MODEL.WEIGHTS.partition("?")  # of a file too, Detectron2 reads what follows itself
        source = f"{path}{mark}{query}" if is_address(path) else path
        check_source(source, "checkpoint", "give the path of a .pth or .pkl file")
    check_unlocked(cfg.OUTPUT_DIR)
    start = _find_start(cfg, job.resume, job.overwrite, job.trust_checkpoint)
    with joined_processes(job.launcher):
        check_proposals(cfg, job.trust_checkpoint)
        check_data(cfg, (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), job.full)
        given = (job.cfg_options or (), own_keys(config))
        with refusals_named(cfg, given):
            check_monitors(cfg, build_cvplugins_hooks(cfg), CvpluginsTrainer.build_evaluator)
        trial_training(
            cfg, lambda model: _begin(cfg, model, start, job.trust_checkpoint, download=not job.dry_run), given=given
        )
        if job.dry_run:
            return job.is_fine
        gc.collect()  # it goes before the run's own comes
        with locked(cfg.OUTPUT_DIR):
            _set_up(cfg)
            first_rank_does(lambda: sweep_unfinished(cfg.OUTPUT_DIR))
            if job.overwrite:
                first_rank_does(lambda: run_folder(cfg.OUTPUT_DIR).clear(keep=[cfg.MODEL.WEIGHTS]))
            trainer = CvpluginsTrainer(cfg, job.trust_checkpoint)
            if job.resume == "auto" and start is None:
                logger.info("no checkpoint in %s to resume from: training starts at the beginning", cfg.OUTPUT_DIR)
            with loading_explained(start or cfg.MODEL.WEIGHTS):
                trainer.resume_or_load(start or False)
            return _run(trainer)


def evaluate(config: str | os.PathLike[str], checkpoint: str | os.PathLike[str], **options: Any) -> str:
    """Evaluate a checkpoint and return a summary for people.

    Args:
        config: Config file.
        checkpoint: Its weights must be those of the config's model.
        options: Those of :class:`~cvplugins.launching.Evaluation`.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    job = Evaluation(config=config, checkpoint=checkpoint, **options)
    cfg = _load(config, job.work_dir, job.cfg_options)
    _require(cfg, config, "TEST")
    use_inference(cfg, job.mode, job.scales, job.flip)
    _check_outputs(cfg, job.out, job.label_dir)
    with joined_processes(job.launcher):
        check_proposals(cfg, job.trust_checkpoint)
        check_data(cfg, cfg.DATASETS.TEST, job.full)
        given = (job.cfg_options or (), own_keys(config))
        with refusals_named(cfg, given):
            model = CvpluginsTrainer.build_model(cfg)
        RunCheckpointer(model, trusted=job.trust_checkpoint).load_whole(checkpoint)
        trial_evaluation(cfg, model, given=given)
        if job.dry_run:
            return job.is_fine
        _set_up(cfg)
        evaluators = [_evaluator(cfg, name, job.out, job.show_dir, job.label_dir) for name in cfg.DATASETS.TEST]
        results = CvpluginsTrainer.test(cfg, with_several_sizes(cfg, model), evaluators)
        if job.out is not None and comm.is_main_process():
            if job.out.endswith(".json"):
                write_metrics(kept_copy(cfg.OUTPUT_DIR, job.out), _flat(results))
            for path in dict.fromkeys(_dump_path(cfg, job.out, name) for name in cfg.DATASETS.TEST):
                hand_over(kept_copy(cfg.OUTPUT_DIR, path), path)
        return _summary(cfg, results, checkpoint)


def _run(trainer: CvpluginsTrainer) -> str:
    """Train and return the summary; of the best weights where EarlyStoppingHook has put them into the model.

    Raises:
        UserError: A loss, gradient or weight is NaN or infinite, or an image cannot be decoded.
        RuntimeError: The same, on another process than the first.
    """
    cfg = trainer.cfg
    folder = cfg.OUTPUT_DIR
    try:
        trainer.train()
    except TrainingStopped:
        best = Path(folder, EarlyStoppingMonitor.file_name)
        if best.is_file():
            return _summary(cfg, trainer.test(cfg, trainer.model), best)
    except (FloatingPointError, UndecodableError) as error:
        message = f"the training stops: {' '.join(str(error).split())}; its files are in {folder}"
        # Of one line only the first process's is seen.
        raise (UserError if comm.is_main_process() else RuntimeError)(message) from error
    return _summary(cfg, getattr(trainer, "_last_eval_results", None) or {}, last_checkpoint(cfg.OUTPUT_DIR))


def _load(config: str | os.PathLike[str], work_dir: str | None, options: Mapping[str, Any] | None) -> CfgNode:
    cfg = load_config(config, options)
    if work_dir is not None:
        cfg.OUTPUT_DIR = work_dir
    elif cfg.OUTPUT_DIR == "./output":  # Detectron2's default, the same for every config
        cfg.OUTPUT_DIR = os.path.join("work_dirs", Path(config).stem)
    check_folder(cfg.OUTPUT_DIR, "work dir")
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    check_values(cfg)
    with refusals_named(cfg, (options or (), own_keys(config))):
        validate_cvplugins_config(cfg)
    register_datasets(cfg)
    return cfg


def _require(cfg: CfgNode, config: str | os.PathLike[str], key: str) -> None:
    if not cfg.DATASETS[key]:
        raise UserError(f"config {config} has no DATASETS.{key}")


def _use_scaled_lr(cfg: CfgNode) -> None:
    base = cfg.CVPLUGINS.TRAIN.BASE_BATCH_SIZE
    if base < 1:
        raise UserError("--auto-scale-lr: the config lacks CVPLUGINS.TRAIN.BASE_BATCH_SIZE, which its BASE_LR is for")
    cfg.SOLVER.BASE_LR *= cfg.SOLVER.IMS_PER_BATCH * cfg.CVPLUGINS.TRAIN.ACCUMULATE / base


def _check_outputs(cfg: CfgNode, out: str | None, label_dir: str | None) -> None:
    """Raise unless the model predicts what shall be written."""
    name = cfg.MODEL.META_ARCHITECTURE
    is_semantic = name == "SemanticSegmentor" or is_mask2former(cfg)
    if label_dir is not None and not is_semantic and name != "PanopticFPN":
        raise UserError(f"--label-dir: {name} predicts no label maps")
    if out is not None and not out.endswith(".json") and is_semantic:
        raise UserError(f"--out {out}: {name} predicts no boxes; label maps go to --label-dir")


def _evaluator(
    cfg: CfgNode, dataset_name: str, out: str | None, show_dir: str | None, label_dir: str | None
) -> DatasetEvaluator:
    """Return what evaluates a dataset, and what keeps or draws the predictions; several datasets get a suffix each."""
    several = len(cfg.DATASETS.TEST) > 1
    found = [CvpluginsTrainer.build_evaluator(cfg, dataset_name)]
    if out is not None and not out.endswith(".json"):
        found.append(DumpPredictions(dataset_name, kept_copy(cfg.OUTPUT_DIR, _dump_path(cfg, out, dataset_name))))
    if show_dir is not None:
        found.append(DrawPredictions(dataset_name, Path(show_dir, dataset_name) if several else show_dir))
    if label_dir is not None:
        found.append(WriteLabelMaps(dataset_name, Path(label_dir, dataset_name) if several else label_dir))
    return DatasetEvaluators(found)


def _dump_path(cfg: CfgNode, out: str, dataset_name: str) -> Path:
    """Return where the predictions of a dataset go: of several, each has a file; all metrics are in one."""
    path = Path(out)
    if out.endswith(".json") or len(cfg.DATASETS.TEST) == 1:
        return path
    return path.with_stem(f"{path.stem}_{dataset_name}")


def _find_start(cfg: CfgNode, resume: str | None, overwrite: bool, trusted: bool) -> str | None:
    """Return the checkpoint to go on with, None to begin with ``MODEL.WEIGHTS``."""
    folder = run_folder(cfg.OUTPUT_DIR)
    for name in WRITTEN:
        if Path(cfg.OUTPUT_DIR, name).is_dir():
            raise UserError(f"work dir {cfg.OUTPUT_DIR}: {name} is a folder, and the run writes a file of this name")
    start = None
    if resume == "auto":
        newest = folder.newest_whole(lambda path: open_for_resume(path, trusted))
        start = None if newest is None else str(newest[0])
    elif resume:
        start = RunCheckpointer.fetched(resume)
        open_for_resume(start, trusted)
    if not overwrite and not (resume == "auto" and start):
        folder.check_free(start)
    if start is None and cfg.MODEL.WEIGHTS:
        check_exists(cfg.MODEL.WEIGHTS)
    return start


def _begin(cfg: CfgNode, model: nn.Module, start: str | None, trusted: bool, *, download: bool) -> bool:
    """Load the weights that the run begins with, or goes on with; return False if they are still to be downloaded.

    Raises:
        UserError: They are broken, or do not fit the model or the optimizer of the config.
    """
    checkpointer = RunCheckpointer(model, trusted=trusted)
    with loading_explained(start or cfg.MODEL.WEIGHTS):
        if start is not None:
            checkpointer.load_whole(start)
            check_optimizer(cfg, CvpluginsTrainer.build_optimizer(cfg, model), start, trusted)
        elif download or is_at_hand(cfg.MODEL.WEIGHTS):
            checkpointer.load_to_begin(cfg.MODEL.WEIGHTS)
        else:
            logger.warning("MODEL.WEIGHTS=%s is not checked: it is downloaded when the run starts", cfg.MODEL.WEIGHTS)
            return False
    return True


def _set_up(cfg: CfgNode) -> None:
    """Log to one file and the screen, keep the config beside it, and seed what is not seeded otherwise."""
    rank = comm.get_rank()
    for name in ("detectron2", "fvcore", "cvplugins"):
        setup_logger(cfg.OUTPUT_DIR, rank, name=name, color=sys.stdout.isatty())
    if comm.is_main_process():
        with write_whole(Path(cfg.OUTPUT_DIR, "config.yaml")) as temporary:
            temporary.write_text(cfg.dump())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)


def _flat(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers by ``task/name``, or ``dataset.task/name`` where there are several test sets."""
    flat: dict[str, float] = {}
    for name, value in results.items():
        inner = value if isinstance(value, Mapping) else {}
        if any(isinstance(each, Mapping) for each in inner.values()):
            flat |= {f"{name}.{key}": number for key, number in _flat(inner).items()}
        else:
            flat |= {f"{name}/{key}": number for key, number in inner.items()}
    return flat


def _summary(cfg: CfgNode, results: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None) -> str:
    folder = Path(cfg.OUTPUT_DIR)
    places = {"checkpoint": checkpoint, "log": folder / "log.txt"}
    if results:
        places["results"] = folder / "inference"
    return summary_lines(_flat(results), places)

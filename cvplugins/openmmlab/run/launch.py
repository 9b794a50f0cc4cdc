"""Train and test with mmengine's Runner: what ``cvplugins train`` and ``cvplugins test`` call."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import METRICS
from torch import nn

from cvplugins.distributed import first_rank_does
from cvplugins.errors import UserError
from cvplugins.files import hand_over, kept_copy, sweep_unfinished
from cvplugins.launching import Evaluation, Training
from cvplugins.openmmlab.data.checks import check_data
from cvplugins.openmmlab.data.class_checks import check_trained_classes
from cvplugins.openmmlab.data.written_lists import keep_lists
from cvplugins.openmmlab.hooks.model_numbers import ModelNumbersHook
from cvplugins.openmmlab.hooks.undefined_numbers import UndefinedNumbersHook
from cvplugins.openmmlab.hooks.validations import ValidationsHook
from cvplugins.openmmlab.models.inference import use_inference
from cvplugins.paths import check_folder, check_source
from cvplugins.reporting import write_metrics
from cvplugins.run_folder import RunFolder
from cvplugins.run_lock import check_unlocked, locked

from .building import build_runner
from .checkpoint import check_weights_fit, find_checkpoint, open_checkpoint, run_folder
from .checkpoint_readers import check_pretrained, fetch_checkpoint, safe_readers
from .config import load_config, type_name
from .finite_weights import check_finite
from .processes import joined_processes
from .resume_checks import check_optimizer, check_weights_reach, loading_explained, open_for_resume
from .summary import LastValidation, summarize
from .trial import trial_run
from .values import check_values

__all__ = ["evaluate", "train"]

TRAINED, TESTED = ("train_dataloader", "val_dataloader"), ("test_dataloader",)


def train(config: str | os.PathLike[str], **options: Any) -> str:
    """Train, evaluate and return a summary for people.

    Args:
        config: Config file.
        options: Those of :class:`~cvplugins.launching.Training`.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    job = Training(config=config, **options)
    cfg = _load(config, job.work_dir, job.cfg_options, job.launcher)
    _require(cfg, config, "train_dataloader", "train_cfg", "optim_wrapper")
    if job.amp:
        _use_amp(cfg)
    if job.auto_scale_lr:
        _use_scaled_lr(cfg, config)
    if job.seed is not None:
        cfg.merge_from_dict({"randomness": {"seed": job.seed}})
    if job.resume is None and cfg.get("load_from"):
        check_source(cfg.load_from, "checkpoint", "load_from names it")
    check_unlocked(cfg.work_dir)
    found = _set_start(cfg, job)
    with joined_processes(cfg), safe_readers(job.trust_checkpoint), _scratch_folder(cfg, job.dry_run) as lists:
        check_data(cfg, TRAINED, job.full, lists).apply(cfg, TRAINED)
        if cfg.resume:
            check_trained_classes(cfg, ("train_dataloader",), found, cfg.load_from)
        check_pretrained(cfg.get("model"), job.trust_checkpoint, download=not job.dry_run)
        with trial_run(cfg, "train_loop", "val_loop", given=job.cfg_options or ()) as trial:
            _check_start(cfg, _unwrapped(trial.runner.model), found)
            trial.has_weights |= cfg.resume
            trial.run_first_batches()
        if job.dry_run:
            return job.is_fine
        del trial, found
        _free_memory()  # they go before the run's own come
        with locked(cfg.work_dir):
            keep_lists(cfg, TRAINED, lists)
            runner = build_runner(cfg, "train_loop", "val_loop")
            first_rank_does(lambda: sweep_unfinished(cfg.work_dir))
            if job.overwrite:
                first_rank_does(lambda: _folder(cfg).clear(keep=[cfg.get("load_from")]))
            if not cfg.resume and job.resume == "auto":
                runner.logger.info(f"no checkpoint in {cfg.work_dir} to resume from: training starts at the beginning")
            validation = LastValidation()
            for hook in (validation, ModelNumbersHook(), UndefinedNumbersHook(), ValidationsHook()):
                runner.register_hook(hook)
            with loading_explained(cfg.get("load_from")):
                runner.train()
            if runner.val_loop is None:
                return summarize(runner, {}, find_checkpoint(runner.work_dir), None)
            if validation.iteration != runner.iter:  # resumed at the end, or the interval does not divide the length
                runner.val_loop.run()
            return summarize(runner, validation.metrics, find_checkpoint(runner.work_dir), runner.val_loop.evaluator)


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
    cfg = _load(config, job.work_dir, job.cfg_options, job.launcher)
    _require(cfg, config, "test_dataloader", "test_cfg", "test_evaluator")
    cfg.load_from, cfg.resume = str(fetch_checkpoint(checkpoint)), False
    found = open_checkpoint(cfg.load_from, job.trust_checkpoint)
    if job.show_dir is not None or job.label_dir is not None:
        _write_predictions(cfg, job.show_dir, job.label_dir)
    with joined_processes(cfg), safe_readers(job.trust_checkpoint), _scratch_folder(cfg, job.dry_run) as lists:
        check_data(cfg, TESTED, job.full, lists).apply(cfg, TESTED)
        check_trained_classes(cfg, ("test_dataloader",), found, str(checkpoint))
        use_inference(cfg, job.mode, job.scales, job.flip)
        with trial_run(cfg, "test_loop", given=job.cfg_options or ()) as trial:
            check_weights_fit(_unwrapped(trial.runner.model), found, checkpoint)
            check_finite(_unwrapped(trial.runner.model), found, checkpoint)
            trial.run_first_batches()
        if job.dry_run:
            return job.is_fine
        del trial
        _free_memory()  # its model goes before the run's own comes
        keep_lists(cfg, TESTED, lists)
        runner = build_runner(cfg, "test_loop")
        check_weights_fit(_unwrapped(runner.model), found, checkpoint)
        del found
        if job.out is not None and job.dumps:
            dump = "mmdet.DumpDetResults" if cfg.get("default_scope") == "mmdet" else "DumpResults"
            kept = str(kept_copy(cfg.work_dir, job.out))
            runner.test_evaluator.metrics.append(METRICS.build({"type": dump, "out_file_path": kept}))
        metrics = runner.test()
        if job.out is not None and is_main_process():
            if job.out.endswith(".json"):
                write_metrics(kept_copy(cfg.work_dir, job.out), metrics)
            hand_over(kept_copy(cfg.work_dir, job.out), job.out)
        return summarize(runner, metrics, checkpoint, runner.test_evaluator)


def _load(config: str | os.PathLike, work_dir: str | None, options: Mapping | None, launcher: str) -> Config:
    cfg = load_config(config, options)
    check_values(cfg)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or os.path.join("work_dirs", Path(config).stem)
    check_folder(cfg.work_dir, "work dir")
    return cfg


@contextlib.contextmanager
def _scratch_folder(cfg: Config, dry_run: bool) -> Iterator[str]:
    """Yield a folder for lists of images, which go with it unless the run begins; a dry run has it for a work dir."""
    with tempfile.TemporaryDirectory() as folder:
        if dry_run:
            cfg.work_dir = folder
        yield folder


def _require(cfg: Config, config: str | os.PathLike, *keys: str) -> None:
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise UserError(f"config {config} has no {', '.join(missing)}")


def _folder(cfg: Config) -> RunFolder:
    return run_folder(cfg.work_dir, (cfg.get("default_hooks") or {}).get("checkpoint"))


def _set_start(cfg: Config, job: Training) -> dict[str, Any]:
    """Set ``load_from`` and ``resume`` of the config, and return the checkpoint to begin with, opened safely."""
    resume = job.resume
    if resume is None and cfg.get("resume"):
        resume = cfg.get("load_from") or "auto"
    job.check_start(resume)
    start, found = None, {}
    if resume == "auto":
        start, found = _folder(cfg).newest_whole(lambda path: open_for_resume(cfg, path, job.trust_checkpoint)) or (
            None,
            {},
        )
    elif resume:
        start = fetch_checkpoint(resume)
        found = open_for_resume(cfg, start, job.trust_checkpoint)
    if not job.overwrite and not (resume == "auto" and start):
        _folder(cfg).check_free(start)
    cfg.resume = start is not None
    if start is None:
        if not cfg.get("load_from"):
            return {}
        start = fetch_checkpoint(cfg.load_from)
        found = open_checkpoint(start, job.trust_checkpoint)
    cfg.load_from = str(start)
    if cfg.resume and cfg.get("randomness", {}).get("seed") is None:
        # mmengine takes the seed over only after it has built model and loaders.
        cfg.merge_from_dict({"randomness": {"seed": found["meta"].get("seed")}})
    return found


def _check_start(cfg: Config, model: nn.Module, found: dict[str, Any]) -> None:
    """Raise ``UserError`` unless the model of the config, and its optimizer, can begin with a checkpoint."""
    if cfg.get("load_from"):
        check_finite(model, found, cfg.load_from)
    if cfg.resume:
        check_weights_fit(model, found, cfg.load_from)
        check_optimizer(cfg, model, found, cfg.load_from)
    elif cfg.get("load_from"):
        check_weights_reach(model, found, cfg.load_from)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model that has the weights; one for several versions of an image is also around it."""
    inner: Any = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    return inner


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _use_amp(cfg: Config) -> None:
    if not torch.cuda.is_available():
        raise UserError("--amp needs a GPU; leave it out to train on the CPU in float32")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.loss_scale = "dynamic"


def _use_scaled_lr(cfg: Config, config: str | os.PathLike) -> None:
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise UserError(f"--auto-scale-lr: config {config} lacks auto_scale_lr = dict(base_batch_size=...)")
    cfg.auto_scale_lr.enable = True


def _write_predictions(cfg: Config, show_dir: str | None, label_dir: str | None) -> None:
    if cfg.get("default_scope") == "mmseg":
        hook = {"type": "cvplugins.SegmentationImagesHook", "overlay_dir": show_dir, "label_dir": label_dir}
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), hook]
        return
    if label_dir is not None:
        raise UserError("--label-dir is for mmseg's models (default_scope = 'mmseg')")
    assert show_dir is not None  # the callers give one of the two
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise UserError("--show-dir: the config has no default_hooks.visualization that could draw")
    hook.draw = True
    if type_name(hook).startswith("Det"):
        hook.test_out_dir = os.path.abspath(show_dir)
    else:
        cfg.visualizer.save_dir = show_dir

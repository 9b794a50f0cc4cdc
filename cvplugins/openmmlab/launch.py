"""Train and test with mmengine's Runner: what ``tools/train.py`` and ``tools/test.py`` call."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.evaluator import DumpResults
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from cvplugins.errors import UserError
from cvplugins.files import write_whole

from .checkpoint import check_weights_fit, find_checkpoint, open_checkpoint
from .config import load_config
from .data_checks import check_data

__all__ = ["check_process_count", "evaluate", "train"]


def train(
    config: str | os.PathLike,
    *,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    seed: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    trust_checkpoint: bool = False,
    dry_run: bool = False,
) -> str:
    """Train, evaluate and return a summary for people.

    Args:
        config: Config file.
        work_dir: Where everything is written; ``work_dirs/<config name>`` if None.
        resume: A checkpoint, or ``"auto"`` for the newest in the work dir.
        amp: Train in mixed precision (GPU only).
        auto_scale_lr: Scale the learning rate by the real batch size over ``auto_scale_lr.base_batch_size``.
        seed: Seed of all randomness; the config's if None.
        cfg_options: Dotted config keys and their new values.
        launcher: ``"none"``, ``"pytorch"`` (torchrun), ``"slurm"`` or ``"mpi"``.
        trust_checkpoint: Allow a checkpoint to run code while it is loaded.
        dry_run: Check the config, the plugins and the data, and train nothing.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    cfg = _load(config, work_dir, cfg_options, launcher)
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _use_scaled_lr(cfg, config)
    if seed is not None:
        cfg.merge_from_dict({"randomness": {"seed": seed}})
    resumed = find_checkpoint(cfg.work_dir) if resume == "auto" else resume
    if resumed is not None:
        cfg.load_from = str(resumed)
    cfg.resume = resumed is not None
    checkpoint = _open_checkpoint(cfg.get("load_from"), trust_checkpoint)
    if resumed is not None and cfg.get("randomness", {}).get("seed") is None:
        # mmengine takes the seed over only after it has built model and loaders.
        cfg.merge_from_dict({"randomness": {"seed": checkpoint.get("meta", {}).get("seed")}})
    with _processes(cfg):
        check_data(cfg, ("train_dataloader", "val_dataloader"))
        if dry_run:
            return f"config, plugins and data of {config} are fine"
        runner = _build_runner(cfg)
        if resumed is not None:
            check_weights_fit(_unwrapped(runner), _weights(checkpoint), resumed)
        elif resume == "auto":
            runner.logger.info(f"no checkpoint in {cfg.work_dir} to resume from: training starts at the beginning")
        runner.train()
        return _summary(runner, _last_validation(runner))


def evaluate(
    config: str | os.PathLike,
    checkpoint: str | os.PathLike,
    *,
    out: str | None = None,
    show_dir: str | None = None,
    work_dir: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    trust_checkpoint: bool = False,
    dry_run: bool = False,
) -> str:
    """Evaluate a checkpoint and return a summary for people.

    Args:
        config: Config file.
        checkpoint: Checkpoint file; its weights must be those of the config's model.
        out: ``X.json`` for the metrics, or ``X.pkl`` for the predictions as OpenMMLab's own tools dump them.
        show_dir: Where images with the predictions are drawn.
        work_dir: Where everything is written; ``work_dirs/<config name>`` if None.
        cfg_options: Dotted config keys and their new values.
        launcher: ``"none"``, ``"pytorch"`` (torchrun), ``"slurm"`` or ``"mpi"``.
        trust_checkpoint: Allow the checkpoint to run code while it is loaded.
        dry_run: Check the config, the plugins, the data and that the checkpoint opens, and evaluate nothing.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    if out is not None and Path(out).suffix not in {".json", ".pkl", ".pickle"}:
        raise UserError(f"--out {out}: use a name that ends in .json (metrics) or .pkl (predictions)")
    cfg = _load(config, work_dir, cfg_options, launcher)
    weights = _weights(_open_checkpoint(str(checkpoint), trust_checkpoint))
    cfg.load_from = str(checkpoint)
    if show_dir is not None:
        _draw_predictions(cfg, show_dir)
    with _processes(cfg):
        check_data(cfg, ("test_dataloader",))
        if dry_run:
            return f"config, plugins, data and checkpoint of {config} are fine"
        runner = _build_runner(cfg)
        check_weights_fit(_unwrapped(runner), weights, checkpoint)
        if out is not None and not out.endswith(".json"):
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
        metrics = runner.test()
        if out is not None and out.endswith(".json") and is_main_process():
            with write_whole(out) as temporary:
                temporary.write_text(json.dumps(metrics, indent=2) + "\n")
        return _summary(runner, metrics)


def check_process_count(processes: int, gpus: int) -> None:
    """Raise ``UserError`` if a node starts more processes than it has GPUs; without a GPU any number is fine.

    >>> check_process_count(2, gpus=0)
    """
    if gpus and processes > gpus:
        raise UserError(
            f"{processes} processes were asked for, but this machine has {gpus} GPU(s); "
            f"start at most {gpus}, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )


def _load(config: str | os.PathLike, work_dir: str | None, options: Mapping | None, launcher: str) -> Config:
    cfg = load_config(config, options)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or os.path.join("work_dirs", Path(config).stem)
    check_process_count(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count())
    return cfg


@contextlib.contextmanager
def _processes(cfg: Config) -> Iterator[None]:
    """Join the other processes of a launcher, on Gloo if there is no GPU, and leave them in the end."""
    if cfg.launcher == "none" or is_distributed():
        yield
        return
    if torch.cuda.is_available():
        init_dist(cfg.launcher, **cfg.get("env_cfg", {}).get("dist_cfg", {"backend": "nccl"}))
    elif cfg.launcher == "pytorch":
        # mmengine/dist/utils.py (0.10.12) calls torch.cuda.set_device whatever the backend, so this comes first.
        torch.distributed.init_process_group("gloo")
        if cfg.get("model_wrapper_cfg") is None:
            cfg.model_wrapper_cfg = {"type": "cvplugins.SyncBatchNormDataParallel", "convert": False}
    else:
        raise UserError(f"--launcher {cfg.launcher} needs a GPU; on the CPU use --launcher pytorch")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _build_runner(cfg: Config) -> Runner:
    try:
        return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    except KeyError as error:
        # mmengine raises KeyError for a type that no registry knows; anything else is not the user's to mend.
        if "is not in the" in str(error) or "has no" in str(error):
            raise UserError(str(error.args[0]).splitlines()[0]) from error
        raise


def _unwrapped(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _open_checkpoint(path: str | None, trusted: bool) -> dict[str, Any]:
    """Return the content of a local checkpoint, opened safely; mmengine will load it again."""
    return {} if path is None or "://" in path else open_checkpoint(path, trusted)


def _weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint.get("state_dict", checkpoint)


def _use_amp(cfg: Config) -> None:
    if not torch.cuda.is_available():
        raise UserError("--amp needs a GPU; leave it out to train on the CPU in float32")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.loss_scale = "dynamic"


def _use_scaled_lr(cfg: Config, config: str | os.PathLike) -> None:
    if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
        raise UserError(f"--auto-scale-lr: config {config} lacks auto_scale_lr = dict(base_batch_size=...)")
    cfg.auto_scale_lr.enable = True


def _draw_predictions(cfg: Config, show_dir: str) -> None:
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise UserError("--show-dir: the config has no default_hooks.visualization that could draw")
    hook.draw = True
    if hook.type.startswith("Det"):
        hook.test_out_dir = os.path.abspath(show_dir)
    else:
        cfg.visualizer.save_dir = show_dir


def _last_validation(runner: Runner) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    found = {name.removeprefix("val/"): buffer.current() for name, buffer in scalars.items() if name.startswith("val/")}
    return {name: value for name, value in found.items() if name not in {"time", "data_time"}}


def _summary(runner: Runner, metrics: Mapping[str, Any]) -> str:
    """Say how good the model is and where everything lies."""
    lines = [f"{name:<24}{value:.4f}" for name, value in metrics.items() if name.count("/") < 2]
    checkpoint = find_checkpoint(runner.work_dir) if runner._train_loop else runner._load_from
    places = {"checkpoint": checkpoint, "log": Path(runner.log_dir) / f"{runner.timestamp}.log"}
    loop = runner._test_loop if runner._train_loop is None else runner._val_loop
    for metric in getattr(getattr(loop, "evaluator", None), "metrics", []):
        places.update(getattr(metric, "written", {}))
    return "\n".join(lines + [f"{name:<24}{place}" for name, place in places.items()])

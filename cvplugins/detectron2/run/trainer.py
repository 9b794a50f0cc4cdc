"""Detectron2's DefaultTrainer with what a config can ask of it."""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog, build_detection_test_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase, create_ddp_model
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.solver import build_optimizer, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from torch import nn

from cvplugins.detectron2.data.image_failures import FilesNamed
from cvplugins.detectron2.data.loading import TrainingLoader, build_training_loader
from cvplugins.detectron2.hooks.model_numbers import ModelNumbersHook
from cvplugins.detectron2.hooks.named import build_cvplugins_hooks, insert_hooks
from cvplugins.detectron2.mask2former.checkout import import_train_net
from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.detectron2.metrics import evaluators as known_evaluators
from cvplugins.detectron2.models.norm import apply_norm_policy
from cvplugins.detectron2.models.scripted import as_written
from cvplugins.distributed import is_distributed
from cvplugins.errors import UserError
from cvplugins.monitors import MetricNames

from .accumulation import AccumulatingTrainer
from .metric_names import metric_names
from .resume_checks import RunCheckpointer
from .run_node import optimizer_options

__all__ = ["CvpluginsTrainer"]

logger = logging.getLogger(__name__)


class CvpluginsTrainer(DefaultTrainer):
    """A DefaultTrainer with hooks, norms, evaluators, accumulation and an optimizer from ``cfg.CVPLUGINS``.

    A resumed run repeats the straight one: the data, what the model draws, and the hooks' states. It also trains in
    several CPU processes, which Detectron2's own does not.

    Args:
        cfg: A config that :func:`add_cvplugins_config` was called with. A negative ``SEED`` is replaced by one that is
            drawn, and a resumed run takes over the seed of its checkpoint.
        trusted: Whether a checkpoint may run code when it is loaded.

    Example::

        register_voc(cfg)
        trainer = CvpluginsTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
    """

    def __init__(self, cfg: CfgNode, trusted: bool = False) -> None:
        # Not DefaultTrainer's, which builds the same things in the same order but hands GPU numbers to DDP on the CPU.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()).clone()
        cfg.defrost()
        cfg.SEED = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        cfg.freeze()
        logger.info("the seed is %d", cfg.SEED)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        devices = {} if next(model.parameters()).is_cuda else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **devices)
        self._trainer = self._build_inner_trainer(cfg, model, loader, optimizer)
        # Detectron2 (0.6) calls after_backward on the inner trainer, where no hook of the config would hear it.
        self._trainer.register_hooks([_Forward(weakref.proxy(self))])
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RunCheckpointer(model, cfg.OUTPUT_DIR, trusted=trusted, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @staticmethod
    def _build_inner_trainer(cfg: CfgNode, model: nn.Module, loader: Any, optimizer: Any) -> SimpleTrainer:
        if cfg.CVPLUGINS.TRAIN.ACCUMULATE > 1:
            accumulate = cfg.CVPLUGINS.TRAIN.ACCUMULATE
            return AccumulatingTrainer(model, loader, optimizer, accumulate, cfg.SOLVER.AMP.ENABLED)
        return (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(model, loader, optimizer)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the model, with its batch norms as ``CVPLUGINS.NORM`` wants them."""
        model = build_model(cfg)
        apply_norm_policy(cfg, model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer that ``CVPLUGINS.TRAIN.OPTIMIZER`` names, or Mask2Former's own, or Detectron2's SGD."""
        node = cfg.CVPLUGINS.TRAIN.OPTIMIZER
        if is_mask2former(cfg):
            # Its train_net.py prints the names of some parameters.
            with contextlib.redirect_stdout(None):
                return import_train_net().Trainer.build_optimizer(cfg, model)
        if not node.type:
            return build_optimizer(cfg, model)
        solver = cfg.SOLVER
        params = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        kind = maybe_add_gradient_clipping(cfg, getattr(torch.optim, node.type))
        return kind(params, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, **optimizer_options(node))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Return the schedule that ``SOLVER.LR_SCHEDULER_NAME`` names: Detectron2's, or DeepLab's ``WarmupPolyLR``."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainingLoader:
        """Return a loader that can begin at any batch."""
        return build_training_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return Detectron2's loader of a test set, which names the file where one cannot be decoded."""
        return build_detection_test_loader(cfg, dataset_name, mapper=FilesNamed(DatasetMapper(cfg, is_train=False)))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Return the evaluators of the config, or those that fit dataset and model.

        Results go to ``OUTPUT_DIR/inference``; with several test sets to a folder there for each.
        """
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            folder = os.path.join(folder, dataset_name)
        found = []
        for entry in cfg.CVPLUGINS.EVALUATORS or _fitting_evaluators(cfg, dataset_name):
            options = {"out_dir": folder} | {name: value for name, value in entry.items() if name != "type"}
            kind = getattr(known_evaluators, entry["type"].removeprefix("cvplugins."))
            found.append(kind(dataset_name, **options))
        return DatasetEvaluators(found)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate on all processes what a checkpoint has, which is the first one's.

        As Detectron2's, which lets each process evaluate with batch norms' statistics of its own, and without its lines
        for spreadsheets, since evaluators log their tables.
        """
        if is_distributed():
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        results = {}
        for index, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            results[name] = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
        return next(iter(results.values())) if len(results) == 1 else results

    def build_hooks(self) -> list[HookBase | None]:
        """Return Detectron2's hooks, those of ``CVPLUGINS.HOOKS``, and what a resumed run needs."""
        ours = [*build_cvplugins_hooks(self.cfg), ModelNumbersHook(self.model)]
        return insert_hooks(super().build_hooks(), ours)

    def metric_names(self) -> MetricNames:
        """Return the names of the numbers that evaluations of this run can give."""
        return metric_names(self.cfg, self._hooks, self.build_evaluator)

    def build_writers(self) -> list[EventWriter]:
        """Return writers to the log, to ``metrics.json``, and to TensorBoard where it is installed."""
        writers = [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")),
        ]
        try:
            import torch.utils.tensorboard  # noqa: F401 - Detectron2's writer imports it at its first event
        except ImportError as error:
            logger.info("no events for TensorBoard: %s", error)
        else:
            writers.append(TensorboardXWriter(self.cfg.OUTPUT_DIR))
        return writers

    def run_step(self) -> None:
        """Make an iteration, in which a scripted loss does not depend on how often it was called before."""
        with as_written():
            super().run_step()

    def resume_or_load(self, resume: bool | str = True) -> None:
        """Go on with a run, or begin one with ``cfg.MODEL.WEIGHTS``.

        Args:
            resume: Whether to go on with the newest checkpoint of ``OUTPUT_DIR``, if there is one, or the path of a
                checkpoint to go on with.

        Raises:
            UserError: A checkpoint to go on with is of another model, or has weights only.
        """
        if isinstance(resume, str):
            self.iter = -1
            self.checkpointer.load(resume)
            self.checkpointer.require_whole(resume)
            if self.iter < 0:
                raise UserError(f"checkpoint {resume} has no state of a run to resume; begin with it by MODEL.WEIGHTS")
            self.start_iter = self.iter + 1
        else:
            super().resume_or_load(resume)
        self.data_loader.start = self.start_iter * self.cfg.CVPLUGINS.TRAIN.ACCUMULATE

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, the seed too."""
        return super().state_dict() | {"seed": self.cfg.SEED}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a run; mixed precision may be on in one of the two runs only."""
        inner = dict(state_dict["_trainer"])
        if isinstance(self._trainer, AMPTrainer):
            inner["grad_scaler"] = inner.get("grad_scaler") or self._trainer.grad_scaler.state_dict()
        super().load_state_dict({**state_dict, "_trainer": inner})
        if state_dict.get("seed", self.cfg.SEED) != self.cfg.SEED:
            self.cfg.defrost()
            self.cfg.SEED = state_dict["seed"]
            self.cfg.freeze()
            self._trainer.reset_data_loader(lambda: self.build_train_loader(self.cfg))


class _Forward(HookBase):
    """Hand an event of the inner trainer to the hooks of the outer one."""

    def __init__(self, outer: TrainerBase) -> None:
        self.outer = outer

    def after_backward(self) -> None:
        self.outer.after_backward()


def _fitting_evaluators(cfg: CfgNode, dataset_name: str) -> list[dict[str, str]]:
    """Return the evaluators of what both the dataset's metadata and the model have."""
    metadata = MetadataCatalog.get(dataset_name)
    model = cfg.MODEL
    architecture = model.META_ARCHITECTURE.removeprefix("Cvplugins")
    if is_mask2former(cfg):
        return _fitting_mask2former(cfg, dataset_name)
    names = []
    if metadata.get("thing_classes") and architecture != "SemanticSegmentor":
        names.append("CvpluginsDetectionEvaluator")
        if model.MASK_ON and metadata.get("json_file"):
            names.append("CvpluginsInstanceSegmentationEvaluator")
    if metadata.get("stuff_classes") and architecture in ("SemanticSegmentor", "PanopticFPN"):
        names.append("CvpluginsSegmentationEvaluator")
    if not names:
        raise UserError(f"no evaluator fits dataset {dataset_name} and {architecture}; set CVPLUGINS.EVALUATORS")
    return [{"type": name} for name in names]


def _fitting_mask2former(cfg: CfgNode, dataset_name: str) -> list[dict[str, str]]:
    """Return the evaluators of what Mask2Former shall infer; its instances have masks and no boxes."""
    metadata, test = MetadataCatalog.get(dataset_name), cfg.MODEL.MASK_FORMER.TEST
    names = []
    if test.SEMANTIC_ON and metadata.get("stuff_classes"):
        names.append("CvpluginsSegmentationEvaluator")
    if test.INSTANCE_ON and metadata.get("json_file"):
        names.append("CvpluginsInstanceSegmentationEvaluator")
    if not names:
        raise UserError(f"no evaluator fits dataset {dataset_name} and Mask2Former; set CVPLUGINS.EVALUATORS")
    return [{"type": name} for name in names]

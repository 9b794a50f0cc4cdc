"""The loss on the validation set, as a metric like any other: ``val/loss``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.monitors import VALIDATION_LOSSES, mean_losses, to_numbers, undisturbed
from cvplugins.openmmlab.data.ground_truth import fit_to_input, is_empty, resizes_annotations
from cvplugins.registry import HOOKS

from .model_numbers import NOT_OF_THE_MODEL

__all__ = ["ImageLosses", "ValidationLoss"]

GROUND_TRUTH = ("auto", "original", "input")


@HOOKS.register_module()
class ValidationLoss(Hook):
    """Add the model's losses to the metrics of every validation of an mmdet or mmseg model.

    They are ``val/loss`` and its parts: see :func:`cvplugins.monitors.mean_losses`, and
    :func:`cvplugins.monitors.undisturbed` for how the model computes them and what stays as it was. A weight average
    that stands in for the weights (``EMAHook``) is what is measured. Precision is that of the validation
    (``val_cfg=dict(fp16=True)``), and an image that a sampler repeats counts once. A model that predicts by a sliding
    window gets the whole image, which some with positions of a fixed size refuse.

    Args:
        ground_truth: Pixels in which the annotations arrive: those of the ``"original"`` image (mmdet's and mmseg's
            own pipelines load them after ``Resize``), those of the resized ``"input"``, or ``"auto"``: as the order
            of the pipeline says.
        skip_empty: Leave out images without objects or labelled pixels, as training's ``filter_empty_gt`` does. Some
            heads (CenterNet) divide by the number of objects, so that one empty image outweighs all others.

    Raises:
        ValueError: ``ground_truth`` is none of these; or, in a validation, the pipeline does not load what the loss
            needs.

    Example:
        In a config::

            custom_hooks = [
                dict(type='cvplugins.ValidationLoss'),
                dict(type='EarlyStoppingHook', monitor='val/loss', min_delta=0.001, patience=5),
            ]
            default_hooks = dict(checkpoint=dict(save_best='val/loss', rule='less'))
    """

    adds = VALIDATION_LOSSES

    def __init__(self, ground_truth: str = "auto", skip_empty: bool = False) -> None:
        if ground_truth not in GROUND_TRUTH:
            raise ValueError(f"ValidationLoss: ground_truth={ground_truth!r}; use one of {', '.join(GROUND_TRUTH)}")
        self.ground_truth = ground_truth
        self.skip_empty = skip_empty

    def before_val(self, runner) -> None:
        """Give the evaluator a metric that knows the model; a metric gathers over ranks and drops what was padded."""
        loop = runner.val_loop
        resized = self.ground_truth == "input"
        if self.ground_truth == "auto":
            resized = resizes_annotations(loop.dataloader.dataset)
        metrics = [metric for metric in loop.evaluator.metrics if not isinstance(metric, ImageLosses)]
        losses = ImageLosses(runner.model, fp16=loop.fp16, resized=resized, skip_empty=self.skip_empty)
        loop.evaluator.metrics = [*metrics, losses]

    def after_val_epoch(self, runner, metrics: Mapping[str, float] | None = None) -> None:
        """Let the log show this validation's losses: of names with "loss" mmengine shows the mean of the last ten."""
        processor = runner.log_processor
        known = {each["data_src"] for each in processor.custom_cfg}
        names = [name for name in metrics or {} if name.startswith("val/") and name not in known]
        processor.custom_cfg = [*processor.custom_cfg, *(dict(data_src=name, method_name="current") for name in names)]


class ImageLosses(BaseMetric):
    """The loss of each image alone.

    Args:
        model: Model of mmdet or mmseg; may be wrapped in DistributedDataParallel.
        fp16: Whether to compute under autocast.
        resized: Whether annotations were resized with the image.
        skip_empty: Whether images without ground truth do not count.
    """

    default_prefix = "val"

    def __init__(self, model: nn.Module, fp16: bool = False, resized: bool = False, skip_empty: bool = False) -> None:
        super().__init__()
        # DistributedDataParallel may exchange buffers in its forward pass.
        self.model: Any = model.module if isinstance(model, DistributedDataParallel) else model
        self.fp16 = fp16
        self.resized = resized
        self.skip_empty = skip_empty

    @torch.no_grad()
    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append name and losses of each image of a batch as the data loader gave it."""
        if not isinstance(data_batch, Mapping) or not {"inputs", "data_samples"} <= set(data_batch):
            raise ValueError(
                "ValidationLoss needs batches of mmdet or mmseg, with inputs and data_samples; "
                "let val_dataloader's pipeline end with PackDetInputs or PackSegInputs"
            )
        for image, sample in zip(data_batch["inputs"], data_batch["data_samples"], strict=True):
            name = str(sample.get("img_path", len(self.results)))
            try:
                self.results.append((name, self._losses(image, sample)))
            except Exception as error:
                if explanation := _explanation(error, name, sample):
                    raise ValueError(explanation) from error
                raise

    def _losses(self, image: Tensor, sample: BaseDataElement) -> dict[str, float] | None:
        preprocessor = self.model.data_preprocessor
        data = preprocessor({"inputs": [image], "data_samples": [sample]}, False)
        inputs, (sample,) = data["inputs"], data["data_samples"]
        # The first name is mmdet's, the second mmseg's.
        ignore_index = getattr(preprocessor, "seg_pad_value", getattr(preprocessor, "seg_pad_val", 255))
        if self.skip_empty and is_empty(sample, ignore_index):
            return None
        sample = fit_to_input(sample, tuple(inputs.shape[-2:]), resized=self.resized, ignore_index=ignore_index)
        call = {"inputs": inputs, "data_samples": [sample], "mode": "loss"}
        device = inputs.device
        with undisturbed(self.model, device, NOT_OF_THE_MODEL) as compute, autocast(enabled=self.fp16):
            total, parts = self.model.parse_losses(compute(**call))
        return to_numbers({**parts, "loss": torch.as_tensor(total)}, device)

    def compute_metrics(self, results: list[tuple[str, dict[str, float] | None]]) -> dict[str, float]:
        """Return the mean of each loss over the images, and of anything else over the images that have it."""
        mean = mean_losses([(image, losses) for image, losses in results if losses is not None])
        for warning in mean.warnings():
            MMLogger.get_current_instance().warning(warning)
        return mean.losses


def _explanation(error: Exception, image: str, sample: BaseDataElement) -> str | None:
    """Return what the user can mend about an error of the model's loss, or None if that is unknown."""
    if isinstance(error, AttributeError) and isinstance(error.obj, BaseDataElement):
        name = (error.name or "").lstrip("_")
        return (
            f"the validation loss of {image} needs '{name}', which val_dataloader's pipeline does "
            "not load; put a LoadAnnotations that loads it (with_bbox=True, with_mask=True ...) behind its Resize"
        )
    if is_empty(sample):
        return (
            f"the model's loss fails for {image}, which has no ground truth ({type(error).__name__}: {error}); if that "
            "is why, set skip_empty=True"
        )
    return None

"""A hook that tests a model with its batch norms folded into its convolutions."""

from __future__ import annotations

import copy

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from cvplugins.norm import fuse_conv_bn
from cvplugins.registry import HOOKS

__all__ = ["FuseConvBNHook"]


@HOOKS.register_module()
class FuseConvBNHook(Hook):
    """Fold on the first batch of a test run; see :func:`cvplugins.norm.fuse_conv_bn`.

    Validation during training is left alone. The model stays folded: its weights are no longer those of the checkpoint.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._folded = False

    def before_train(self, runner) -> None:
        """Refuse to train what was folded.

        Raises:
            RuntimeError: The model was tested, and so folded, before.
        """
        if self._folded:
            raise RuntimeError("FuseConvBNHook has folded the model for a test; build a new Runner to train")

    def before_test_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Fold once; the batch is copied, because predictions are written into it."""
        if not self._folded:
            self._folded = True
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            report = fuse_conv_bn(model, copy.deepcopy(data_batch), call=model.test_step)
            runner.logger.info(str(report))

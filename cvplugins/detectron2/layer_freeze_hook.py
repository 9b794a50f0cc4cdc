"""Hook: layers frozen for a while, and learning rates by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from cvplugins.errors import UserError
from cvplugins.monitors import FreezeRule, LayerFreeze, split_learning_rates

from .plugin_hook import PluginHook, logger

__all__ = ["LayerFreezeHook"]


class LayerFreezeHook(PluginHook):
    """Freeze layers by a schedule and give layers learning rates of their own, for transfer learning.

    See :class:`cvplugins.monitors.LayerFreeze` and :func:`cvplugins.monitors.split_learning_rates`. Frozen batch
    norms do not move. Detectron2's schedulers keep the factors. Resumed runs go on as they were, with the same options.
    In distributed runs the model is wrapped in DDP anew, with ``find_unused_parameters``: the wrapper that Detectron2
    made would wait for the gradients of frozen layers.

    Args:
        frozen: Rules: ``{layers: [backbone], until: 1000}`` and optionally ``begin``, in iterations from 0; without
            ``until`` for the whole training. Names or patterns of modules or parameters.
        lr_factors: Factor on the learning rate by name or pattern; the last that matches counts.

    Raises:
        ValueError: There is nothing to do, or a rule is not valid.
    """

    priority = 40  # before hooks that look at what trains

    def __init__(self, frozen: Sequence[Mapping[str, Any]] = (), lr_factors: Mapping[str, float] | None = None) -> None:
        if not frozen and not lr_factors:
            raise ValueError("LayerFreezeHook has nothing to do; set frozen or lr_factors")
        self.rules = [FreezeRule(**rule) for rule in frozen]
        self.lr_factors = dict(lr_factors or {})
        self._freeze: Any = None  # a LayerFreeze from begin on
        self._is_split = False

    def begin(self) -> None:
        """Find the layers, and split the optimizer's groups of a new run."""
        try:
            self._freeze = LayerFreeze(self.model, self.rules)
            origins = self._split()
        except ValueError as error:
            raise UserError(f"LayerFreezeHook: {error}") from error
        for scheduler in self.schedulers if origins else ():
            scheduler.base_lrs = [scheduler.base_lrs[index] * factor for index, factor in origins]
        wrapper = self.trainer.model
        if isinstance(wrapper, DistributedDataParallel) and self.rules and not wrapper.find_unused_parameters:
            self.trainer.model = DistributedDataParallel(
                wrapper.module,
                device_ids=wrapper.device_ids,
                broadcast_buffers=wrapper.broadcast_buffers,
                find_unused_parameters=True,
            )

    def before_step(self) -> None:
        """Freeze and release what is due."""
        report = self._freeze.observe(self.trainer.iter)
        if report:
            logger.info("iteration %d: %s", report.step, report)

    def release(self) -> None:
        """Leave the model as it came."""
        if self._freeze is not None:
            self._freeze.restore()

    def state_dict(self) -> dict[str, Any]:
        """Return the factors, so that a resumed run splits the optimizer's groups before it loads their state."""
        return {"lr_factors": self.lr_factors} if self.lr_factors else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Split the optimizer's groups; the schedulers' rates are restored by Detectron2's own hook."""
        if state["lr_factors"] != self.lr_factors:
            raise UserError(
                f"LayerFreezeHook: lr_factors are {self.lr_factors}, but the run that is resumed has "
                f"{state['lr_factors']}; give the same"
            )
        self._split()

    def _split(self) -> list[tuple[int, float]]:
        if not self.lr_factors or self._is_split:
            return []
        self._is_split = True
        origins = split_learning_rates(self.trainer.optimizer, self.model, self.lr_factors)
        factors = ", ".join(f"{pattern} x {factor:g}" for pattern, factor in self.lr_factors.items())
        logger.info("learning rates by layer: %s", factors)
        return origins

"""Several batches for one step of the optimizer."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine.train_loop import AMPTrainer
from torch.nn.parallel import DistributedDataParallel

__all__ = ["AccumulatingTrainer"]


class AccumulatingTrainer(AMPTrainer):
    """Make each step from the mean gradient of several batches.

    That is the gradient of one batch of all their images, as far as losses are means over images. Batch norms see one
    batch at a time. An iteration is a step, so that schedules and hooks count as ever.

    Args:
        model: Returns a dict of losses.
        data_loader: Iterable of batches.
        optimizer: A torch optimizer.
        accumulate: Batches for each step.
        amp: Whether to compute in mixed precision (GPU).
    """

    def __init__(
        self, model: torch.nn.Module, data_loader: Any, optimizer: torch.optim.Optimizer, accumulate: int, amp: bool
    ) -> None:
        self.device = next(model.parameters()).device.type
        super().__init__(model, data_loader, optimizer, grad_scaler=_grad_scaler(self.device, amp))
        self.accumulate = accumulate
        self.amp = amp

    def run_step(self) -> None:
        """Compute the gradients of the batches and make the step."""
        self.optimizer.zero_grad()
        waited = 0.0
        totals: dict[str, Any] = {}
        for number in range(self.accumulate):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            waited += time.perf_counter() - start
            with self._without_exchange(number):
                losses = self._losses(data)
                self.grad_scaler.scale(sum(losses.values())).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.detach()
        self.after_backward()
        self._write_metrics(totals, waited)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _losses(self, data: Any) -> dict[str, torch.Tensor]:
        """Return the share of a batch in the step's losses."""
        with torch.autocast(self.device, dtype=self.precision, enabled=self.amp):
            losses = self.model(data)
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            return {name: value / self.accumulate for name, value in losses.items()}

    def _without_exchange(self, number: int) -> Any:
        """Let the processes exchange gradients in the last batch only."""
        is_last = number == self.accumulate - 1
        return nullcontext() if is_last or not isinstance(self.model, DistributedDataParallel) else self.model.no_sync()


def _grad_scaler(device: str, enabled: bool) -> Any:
    """Return a scaler; one that is not enabled hands everything on."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # before torch 2.3

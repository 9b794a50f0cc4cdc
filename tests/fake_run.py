"""A training without a framework: a linear model, an optimizer, and lists of what monitors said."""

from __future__ import annotations

import torch
from torch import nn

from cvplugins.monitors import MetricNames, Run, watch_steps


class FakeRun(Run):
    """Trains ``model`` on ``batches`` of (input, target) and calls a monitor's events in their order."""

    def __init__(self, model, folder=None, **optimizer):
        self._model = model
        self._optimizers = {"": torch.optim.SGD(model.parameters(), **{"lr": 0.1, **optimizer})}
        self._iteration = 0
        self._folder = folder
        self.stopped = None
        self.logged, self.plotted, self.infos, self.warnings = [], [], [], []

    model = property(lambda self: self._model)
    optimizers = property(lambda self: self._optimizers)
    iteration = property(lambda self: self._iteration)
    framework, config_name, averages = "fake", None, ()
    autocast, is_scaled = None, False
    work_dir = log_dir = property(lambda self: self._folder)

    def scale_learning_rates(self, factor):
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] *= factor

    def log(self, scalars):
        self.logged.append((self._iteration, dict(scalars)))

    def plot(self, scalars, step=None):
        self.plotted.append((self._iteration if step is None else step, dict(scalars)))

    def info(self, message):
        self.infos.append(message)

    def warn(self, message):
        self.warnings.append(message)

    def newest_loss(self):
        return None

    weights_key = "weights"
    tested_models = property(lambda self: [self._model])

    def metric_names(self):
        return MetricNames(("val/loss",))

    def stop(self, reason):
        self.stopped = reason

    def train(self, monitor, batches, evaluate=None, period=2):
        """Train, and evaluate every ``period`` iterations: ``evaluate(run)`` returns the numbers."""
        monitor.begin(self)
        handles = watch_steps(self, monitor)
        try:
            for image, target in batches if self.stopped is None else ():
                monitor.before_iteration(self)
                loss = nn.functional.mse_loss(self.model(image), target)
                for optimizer in self.optimizers.values():
                    optimizer.zero_grad()
                loss.backward()
                for optimizer in self.optimizers.values():
                    optimizer.step()
                monitor.after_iteration(self)
                self._iteration += 1
                if evaluate is not None and self._iteration % period == 0:
                    monitor.evaluated(self, evaluate(self), {"iteration": self._iteration})
                if self.stopped is not None:
                    break
            monitor.finish(self)
        finally:
            for handle in handles:
                handle.remove()
            monitor.release(self)

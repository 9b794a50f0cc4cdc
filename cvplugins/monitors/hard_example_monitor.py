"""Find the images that a model finds hardest, and have them drawn more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cvplugins.distributed import rank
from cvplugins.errors import UserError

from .hard_example_draws import HardExamplePlan
from .hard_examples import HardExamples
from .options import require_at_least
from .run import Monitor, Run

__all__ = ["HardExampleMonitor"]


class HardExampleMonitor(Monitor):
    """Find the images that a model finds hardest, and have them drawn more often.

    See :class:`cvplugins.monitors.HardExamples`. Images are judged by the losses of their batches. Every ``interval``
    iterations all ranks exchange what they found and agree on the pool of hard images. It is drawn in the interval
    after the next, because the loader's workers have fetched much of the next one already. The log gets its size,
    ``hard_examples``, and the name of the hardest image. The pool lies in ``hard_examples.json`` beside the log: look
    at it, because wrong labels are hard too.

    Args:
        capacity: Images in the pool at most, at least 1.
        min_hardness: Images in the pool are harder than so many times the median image, at least 0.
        rate: How fast an estimate follows what is seen, in (0, 1].
        interval: Iterations between two pools, at least 1.
        loss: Which of the model's losses to go by; ``"loss"`` is their sum.

    Attributes:
        estimates: What is known of the images; None before the run begins.

    Raises:
        ValueError: An option is out of its range; or, when a run begins, ``interval`` is too short for it.
    """

    def __init__(
        self,
        capacity: int = 256,
        min_hardness: float = 2.0,
        rate: float = 0.5,
        interval: int = 1000,
        loss: str = "loss",
    ) -> None:
        require_at_least(1, interval=interval)
        self._options: dict[str, Any] = {"capacity": capacity, "min_hardness": min_hardness, "rate": rate}
        HardExamples(1, **self._options)  # a wrong option is told at once
        self.interval = interval
        self.loss = loss
        self.names: Sequence[str] = ()
        self.estimates: HardExamples | None = None
        self._resumed: Mapping[str, Any] | None = None

    def know(self, names: Sequence[str], key: str, plan: HardExamplePlan, fetched: int = 0) -> None:
        """Learn of the data before the run begins.

        Args:
            names: Of all images, in the order of their indices.
            key: What a name is called in the file.
            plan: What the loader draws by.
            fetched: Iterations for which the loader's workers fetch batches ahead.
        """
        self.names, self.key, self.plan, self._fetched = names, key, plan, fetched

    def begin(self, run: Run) -> None:
        """Begin without estimates, or take up where a resumed run stopped."""
        if self.interval < self._fetched:
            raise ValueError(
                f"interval is {self.interval}; it must be at least {self._fetched}, the iterations for which the "
                "loader's workers fetch batches ahead"
            )
        self._index = {name: index for index, name in reversed(list(enumerate(self.names)))}  # the first of equals
        self.estimates = HardExamples(len(self.names), **self._options)
        if self._resumed is not None:
            self.estimates.load_state_dict(self._resumed["monitor"])
            self.plan.pools = {part: list(pool) for part, pool in self._resumed["pools"].items()}
            self._resumed = None

    def indices(self, names: Sequence[str]) -> list[int]:
        """Return the images of these names.

        Raises:
            KeyError: There is none of a name.
        """
        return [self._index[name] for name in names]

    def observe(self, indices: Sequence[int], losses: Mapping[str, Tensor | float]) -> None:
        """Take note of the losses of a batch, their sum as ``"loss"`` among them.

        Raises:
            UserError: The loss to go by is not among them.
        """
        assert self.estimates is not None  # it has begun
        if self.loss not in losses:
            raise UserError(
                f"HardExampleMiningHook: the model has no loss {self.loss!r}; it has {', '.join(sorted(losses))}"
            )
        self.estimates.observe(indices, losses[self.loss])

    def after_iteration(self, run: Run) -> None:
        """Make the pool at intervals."""
        if run.ends_interval(self.interval):
            done = run.iteration + 1
            self.refresh(run, part=done // self.interval + 1, iteration=done)

    def refresh(self, run: Run, part: int, **when: int) -> None:
        """Make a pool; every rank has to call this.

        Args:
            run: The training.
            part: The part of the training that draws from the pool, as the plan counts them.
            when: What the file says of the time, such as ``iteration``.
        """
        assert self.estimates is not None  # it has begun
        report = self.estimates.refresh()
        self.plan.add(part, report.pool)
        run.log({"hard_examples": len(report.pool)})
        run.plot({"hard_examples/count": len(report.pool)})
        if words := report.in_words(self.names):
            run.info(f"hard examples: {words}")
        if rank() == 0:
            report.write(Path(run.log_dir, "hard_examples.json"), self.names, self.key, **when)

    def state_dict(self) -> dict[str, Any]:
        """Return estimates and pools; of several ranks, what the first has observed since the last pool."""
        if self.estimates is None:
            return {}
        return {"monitor": self.estimates.state_dict(), "pools": dict(self.plan.pools)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state until the data is known."""
        self._resumed = state

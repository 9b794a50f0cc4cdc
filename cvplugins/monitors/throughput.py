"""Throughput: how fast a training is, what it waits for, and when it will be done."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cvplugins.distributed import gather_objects

__all__ = ["Throughput", "ThroughputReport", "gpu_utilisation", "peak_memory"]

logger = logging.getLogger(__name__)

MEBI = 1024**2
REMEMBERED = 10  # validations


@dataclass(frozen=True)
class ThroughputReport:
    """What an interval was like.

    Attributes:
        iteration: Iterations done so far.
        images_per_second: Of all ranks together, over the interval, without validations.
        iteration_seconds: Median of recent iterations.
        data_seconds: Mean a training iteration waits for its batch, on the rank that waits longest.
        compute_seconds: Mean of the rest of an iteration, on the same rank.
        memory_cpu: Peak memory of the largest process, in MiB, without the workers of its data loader.
        memory_gpu: Peak of what tensors took on the fullest GPU, in MiB; None without CUDA.
        gpu_utilisation: Mean share of time over the ranks in which their GPU did anything; None without NVML.
        eta_seconds: Until the end of the training, validations included.
        eta_knows_validation: False if validations are to come and none has been timed yet.
        slowest_rank: Whose own work (data and forward pass) takes longest; None in one process.
        slowest_excess: By what share it takes longer than the median of the ranks.
    """

    iteration: int
    images_per_second: float
    iteration_seconds: float
    data_seconds: float
    compute_seconds: float
    memory_cpu: float
    memory_gpu: float | None
    gpu_utilisation: float | None
    eta_seconds: float
    eta_knows_validation: bool
    slowest_rank: int | None = None
    slowest_excess: float = 0.0

    def scalars(self) -> dict[str, float]:
        """Return the numbers under the names that a logger shows; what is not known is left out."""
        seconds = self.data_seconds + self.compute_seconds
        known = {
            "images_per_second": self.images_per_second,
            "data_seconds": self.data_seconds,
            "compute_seconds": self.compute_seconds,
            "data_share": self.data_seconds / seconds if seconds else 0.0,
            "memory_cpu_mib": self.memory_cpu,
            "memory_gpu_mib": self.memory_gpu,
            "gpu_utilisation": self.gpu_utilisation,
            "eta_seconds": self.eta_seconds,
            "slowest_rank": self.slowest_rank,
            "slowest_excess": None if self.slowest_rank is None else self.slowest_excess,
        }
        return {f"throughput/{name}": float(value) for name, value in known.items() if value is not None}

    def __str__(self) -> str:
        seconds = self.data_seconds + self.compute_seconds
        share = self.data_seconds / seconds if seconds else 0.0
        parts = [
            f"{self.images_per_second:.3g} images/s",
            f"{self.iteration_seconds:.3g} s an iteration, {share:.0%} of it waiting for data",
            f"peak memory {self.memory_cpu:.0f} MiB CPU"
            + ("" if self.memory_gpu is None else f", {self.memory_gpu:.0f} MiB GPU"),
        ]
        if self.gpu_utilisation is not None:
            parts.append(f"GPU {self.gpu_utilisation:.0%} busy")
        if self.slowest_rank is not None:
            parts.append(f"slowest rank {self.slowest_rank} (+{self.slowest_excess:.0%})")
        note = "validations included" if self.eta_knows_validation else "and the validations, not timed yet"
        return "; ".join([*parts, f"done in {_duration(self.eta_seconds)}, {note}"])


class Throughput:
    """Clock of a training loop, without a device synchronisation of its own.

    Call :meth:`start` before the first batch is asked for, then for each iteration :meth:`batch_arrived`,
    :meth:`forward_done` if there are several ranks, and :meth:`step_done`; and :meth:`validation_starts` and
    :meth:`validation_done` around a validation. On a GPU, a loop that reads no loss runs ahead of the device: sums
    over an interval are right, but forward times are only those of its host, and a GPU slower than others shows in
    none of them.

    The ETA is the median of recent iterations times those left, plus the median of the validations so far times
    those to come. A median forgets the first, slow iterations and rare pauses; a mean carries them on to the end.

    Args:
        interval: Iterations from one report to the next, at least 1. All ranks talk to each other then.
        window: Iterations that are recent, at least 1.
        clock: Returns seconds.

    Raises:
        ValueError: ``interval`` or ``window`` is less than 1.

    Example:
        >>> now = iter([0.0, 0.1, 0.5, 0.5])
        >>> throughput = Throughput(interval=1, clock=lambda: next(now))
        >>> throughput.start()
        >>> throughput.batch_arrived()
        >>> report = throughput.step_done(1, images=2, iterations_left=9)
        >>> report.images_per_second, report.data_seconds, report.compute_seconds, report.eta_seconds
        (4.0, 0.1, 0.4, 4.5)
    """

    def __init__(self, interval: int = 50, window: int = 200, clock: Callable[[], float] = time.perf_counter) -> None:
        for name, value in (("interval", interval), ("window", window)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self.interval = interval
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=window)
        self._validations: deque[float] = deque(maxlen=REMEMBERED)
        self._mark: float | None = None  # end of the last iteration
        self._arrived: float | None = None
        self._forward_end: float | None = None
        self._validation_started: float | None = None
        self._paused = 0.0  # seconds of validation since the mark
        self._clear()

    def start(self) -> None:
        """Begin to wait for a batch; what happened since the last iteration does not count."""
        self._mark, self._arrived, self._paused = self._clock(), None, 0.0

    def batch_arrived(self) -> None:
        """End the wait for a batch."""
        self._arrived = self._clock()
        if self._mark is not None:
            self._data += self._arrived - self._mark - self._paused

    def forward_done(self) -> None:
        """End what a rank does before it may wait for others; call it as often as there are forward passes."""
        if self._arrived is not None:
            self._forward_end = self._clock()

    def step_done(
        self, iteration: int, images: int, iterations_left: int, validations_left: int = 0
    ) -> ThroughputReport | None:
        """End an iteration.

        Args:
            iteration: Iterations done so far, the same on all ranks.
            images: Images of this rank's batch.
            iterations_left: Iterations to come.
            validations_left: Validations to come.

        Returns:
            A report when ``iteration`` is a multiple of ``interval``; on all ranks, which have to call this together.
        """
        now = self._clock()
        if self._mark is not None and self._arrived is not None:
            seconds = now - self._mark - self._paused
            self._recent.append(seconds)
            self._seconds += seconds
            self._images += images
            self._count += 1
            if self._forward_end is not None:
                self._forward += self._forward_end - self._arrived
        self._mark, self._arrived, self._forward_end, self._paused = now, None, None, 0.0
        if iteration % self.interval or not self._count:
            return None
        report = self._report(iteration, iterations_left, validations_left)
        self._clear()
        self._mark = self._clock()  # what the report took is not the next batch's fault
        return report

    def validation_starts(self) -> None:
        """Begin a validation."""
        self._validation_started = self._clock()

    def validation_done(self) -> None:
        """End a validation, evaluation included."""
        if self._validation_started is not None:
            seconds = self._clock() - self._validation_started
            self._validations.append(seconds)
            self._paused += seconds
            self._validation_started = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know: without it, its first ETA would leave out validations."""
        return {"validations": list(self._validations)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned. Times of iterations are not kept: the machine may be another."""
        self._validations = deque(state["validations"], maxlen=REMEMBERED)

    def _clear(self) -> None:
        self._data = self._seconds = self._forward = 0.0
        self._images = self._count = 0

    def _report(self, iteration: int, iterations_left: int, validations_left: int) -> ThroughputReport:
        memory_cpu, memory_gpu = peak_memory()
        ranks = gather_objects(
            _Rank(
                images=self._images,
                seconds=self._seconds,
                data=self._data / self._count,
                compute=(self._seconds - self._data) / self._count,
                own=(self._data + self._forward) / self._count,
                median=statistics.median(self._recent),
                validation=statistics.median(self._validations) if self._validations else 0.0,
                memory_cpu=memory_cpu,
                memory_gpu=memory_gpu,
                utilisation=gpu_utilisation(),
            )
        )
        # The ranks wait for each other, so that the slowest decides.
        seconds, median = max(each.seconds for each in ranks), max(each.median for each in ranks)
        validation = max(each.validation for each in ranks)
        waiting = max(ranks, key=lambda each: each.data)
        slowest, excess = _slowest([each.own for each in ranks])
        busy = [each.utilisation for each in ranks if each.utilisation is not None]
        return ThroughputReport(
            iteration=iteration,
            images_per_second=sum(each.images for each in ranks) / seconds if seconds else 0.0,
            iteration_seconds=median,
            data_seconds=waiting.data,
            compute_seconds=waiting.compute,
            memory_cpu=max(each.memory_cpu for each in ranks),
            memory_gpu=max((each.memory_gpu for each in ranks if each.memory_gpu is not None), default=None),
            gpu_utilisation=statistics.mean(busy) if busy else None,
            eta_seconds=iterations_left * median + validations_left * validation,
            eta_knows_validation=not validations_left or validation > 0,
            slowest_rank=slowest,
            slowest_excess=excess,
        )


@dataclass(frozen=True)
class _Rank:
    """What one rank knows of an interval; seconds per iteration but for ``seconds``, the sum, and ``validation``."""

    images: int
    seconds: float
    data: float
    compute: float
    own: float
    median: float
    validation: float
    memory_cpu: float
    memory_gpu: float | None
    utilisation: float | None


def peak_memory() -> tuple[float, float | None]:
    """Return the peak memory of this process and of tensors on its GPU, in MiB; None without CUDA.

    >>> peak_memory()[0] > 1
    True
    """
    gpu = torch.cuda.max_memory_allocated() / MEBI if torch.cuda.is_available() else None
    try:
        import resource
    except ImportError:  # Windows
        return 0.0, gpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In KiB, but on macOS in bytes.
    return (peak / MEBI if sys.platform == "darwin" else peak / 1024), gpu


def gpu_utilisation() -> float | None:
    """Return the share of the last second in which the current GPU did anything; None without CUDA or NVML.

    torch asks NVML through the package nvidia-ml-py (``pip install nvidia-ml-py``).
    """
    if not torch.cuda.is_available():
        return None
    try:
        return torch.cuda.utilization() / 100
    except Exception as error:  # no package, no driver library, a part of a GPU: NVML's errors have no class of torch
        logger.debug("no GPU utilisation: %s", error)
        return None


def _slowest(seconds: list[float]) -> tuple[int | None, float]:
    """Return the rank with most seconds, and by what share it exceeds the median; None for one rank."""
    if len(seconds) == 1:
        return None, 0.0
    most = max(seconds)
    # The lower median, so that of two ranks the slower has an excess.
    median = statistics.median_low(seconds)
    return seconds.index(most), most / median - 1 if median else 0.0


def _duration(seconds: float) -> str:
    """Return hours, minutes and seconds.

    >>> _duration(93784)
    '1 day 2:03:04'
    """
    days, rest = divmod(round(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} day{'s' if days > 1 else ''} {clock}" if days else clock

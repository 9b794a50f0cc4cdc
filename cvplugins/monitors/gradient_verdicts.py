"""Verdicts: what the norms of layers, observed again and again, say about a training."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["GradientLimits", "GradientVerdict", "GradientVerdicts"]

CONFIRM = 3  # observations that outlast a single bad batch
WARM_UP = 20  # observations before a level of the total norm is known
MEMORY = 100  # observations that the level of the total norm remembers


@dataclass(frozen=True)
class GradientLimits:
    """Where trouble begins.

    Attributes:
        fall: Norm of the layers near the input, relative to the median of the half near the output, under which
            gradients vanish; over its inverse they explode.
        growth: Factor by which the total norm has to exceed its own level (a moving geometric mean), which it also
            has to exceed at its highest, to explode.
        to_weight: Ratio of a layer's gradient norm to its weight norm that only a bad initialisation or scale has.
        dead_units: Share of a layer's activations' units that are 0 for a whole batch.
        patience: Observations in a row before a layer counts as vanished, dead or unused.
        plateau: Observations whose median loss has to be better than the best median before it; 0 to not look.
        gain: The relative improvement that counts, if it is more than chance.

    Raises:
        ValueError: One of them is out of its range.
    """

    fall: float = 1e-4
    growth: float = 100.0
    to_weight: float = 1e3
    dead_units: float = 0.9
    patience: int = 20
    plateau: int = 1000
    gain: float = 0.01

    def __post_init__(self) -> None:
        ranges = {"fall": (0, 1), "growth": (1, math.inf), "to_weight": (0, math.inf), "dead_units": (0, 1)}
        for name, (low, high) in {**ranges, "gain": (0, 1)}.items():
            if not low < getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above {low} and at most {high}")
        for name, least in (("patience", 1), ("plateau", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    @classmethod
    def of(cls, limits: GradientLimits | dict[str, float] | None) -> GradientLimits:
        """Return limits from those that differ from the defaults.

        Raises:
            ValueError: A name is none of ours.

        Example:
            >>> GradientLimits.of({"growth": 10}).growth
            10
        """
        if isinstance(limits, GradientLimits):
            return limits
        known = [field.name for field in fields(cls)]
        for name in limits or {}:
            if name not in known:
                raise ValueError(f"limits has no {name!r}; it takes {', '.join(known)}")
        return cls(**(limits or {}))  # type: ignore[arg-type]


@dataclass(frozen=True)
class GradientVerdict:
    """One thing that is wrong, said once.

    Attributes:
        kind: ``"vanishing"``, ``"exploding"``, ``"dead"``, ``"unused"`` or ``"plateau"``.
        layer: Where: the layer nearest the output if there are several; empty for a plateau.
        layers: All of them, in the order of the model.
        since: Iteration at which it was first seen.
        iteration: When it was sure.
        evidence: The numbers, and what to do.
    """

    kind: str
    layer: str
    layers: tuple[str, ...]
    since: int
    iteration: int
    evidence: str

    def __str__(self) -> str:
        where = f" at {self.layer}" if self.layer else ""
        others = [name for name in reversed(self.layers) if name != self.layer]
        if others:
            where += f" (and {', '.join(others[:3])}" + (f" and {len(others) - 3} more)" if len(others) > 3 else ")")
        return f"{self.kind}{where} since iteration {self.since}: {self.evidence}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"layers": list(self.layers)}


class _Streaks:
    """Conditions that hold at one observation after the other."""

    def __init__(self) -> None:
        self.runs: dict[str, list[int]] = {}  # first iteration and observations since

    def update(self, holding: Iterable[str], iteration: int, patience: int) -> list[str]:
        """Return the conditions that hold for the ``patience``-th time in a row."""
        runs = {}
        for name in holding:
            first, count = self.runs.get(name, (iteration, 0))
            runs[name] = [first, count + 1]
        self.runs = runs
        return [name for name, (_, count) in runs.items() if count == patience]


class GradientVerdicts:
    """Judge layers by their gradient norms; every cause is reported once.

    Layers come in the order in which the model registers them, which is taken for the way from input to output.
    Only layers that own a matrix (not biases and scales alone) are compared with each other.

    Args:
        limits: Where trouble begins.

    Example:
        >>> verdicts = GradientVerdicts(GradientLimits(patience=1))
        >>> (found,) = verdicts.judge(7, ["a", "b", "c", "d"], [0.0, 0.0, 2.0, 1.0], range(4))
        >>> found.kind, found.layer, found.layers, found.since
        ('dead', 'b', ('a', 'b'), 7)
    """

    def __init__(self, limits: GradientLimits | None = None) -> None:
        self.limits = limits or GradientLimits()
        self._streaks: dict[str, _Streaks] = {}
        self._reported: set[str] = set()
        # log10 of the total norm, the highest it has been, observations
        self._levels: dict[str, tuple[float, float, int]] = {}
        self._losses: list[float] = []
        self._best: tuple[float, int] | None = None  # best median loss, the iteration at which its window began
        self._window_start = 0

    def judge(
        self,
        iteration: int,
        layers: Sequence[str],
        norms: Sequence[float],
        with_matrix: Sequence[int],
        unused: Sequence[str] = (),
        part: str = "",
    ) -> list[GradientVerdict]:
        """Return what has just become sure.

        Args:
            iteration: The current step.
            layers: Names, from input to output.
            norms: Gradient norm of each, finite.
            with_matrix: Indices of those that own a matrix or a convolution kernel.
            unused: Parameters without a gradient.
            part: Name of the part of the model that these layers are, if it is observed in parts.
        """
        end = 0
        verdicts: list[GradientVerdict] = []
        if any(norms):
            verdicts, end = self._trend(iteration, layers, norms, with_matrix, part)
            verdicts += self._growth(iteration, layers, norms, part)
        # A gradient that has fallen under the smallest number vanished; it is not dead.
        zero = [name for index, name in enumerate(layers) if index >= end and not norms[index]]
        verdicts += self._idle("dead", zero, iteration, part)
        return verdicts + self._idle("unused", unused, iteration, part)

    def judge_details(
        self,
        iteration: int,
        to_weight: dict[str, float],
        dead_units: dict[str, float],
        part: str = "",
    ) -> list[GradientVerdict]:
        """Return what gradient norms relative to weights, and shares of dead units, have just made sure."""
        verdicts = []
        large = {name: ratio for name, ratio in to_weight.items() if ratio > self.limits.to_weight}
        if large and self._is_new(f"exploding/weights/{part}"):
            worst = max(large, key=large.__getitem__)
            evidence = (
                f"gradients of {len(large)} layers are over {self.limits.to_weight:g} times their weights, here "
                f"{large[worst]:.1e} times; check initialisation, input normalisation and the scale of the loss"
            )
            layers = (*(name for name in large if name != worst), worst)
            verdicts.append(GradientVerdict("exploding", worst, layers, iteration, iteration, evidence))
        dead = [name for name, share in dead_units.items() if share >= self.limits.dead_units]
        streaks = self._streak(f"units/{part}")
        for name in streaks.update(dead, iteration, CONFIRM):
            if self._is_new(f"units/{name}"):
                evidence = (
                    f"{dead_units[name]:.0%} of its units put out nothing but 0 in whole batches; lower the learning "
                    "rate, check the bias before it, or use a leaky activation"
                )
                verdicts.append(GradientVerdict("dead", name, (name,), streaks.runs[name][0], iteration, evidence))
        return verdicts

    def judge_loss(self, iteration: int, loss: float, total_norm: float) -> list[GradientVerdict]:
        """Return a plateau that the loss of this iteration completes; losses that are not finite do not count."""
        if not self.limits.plateau or not math.isfinite(loss):
            return []
        if not self._losses:
            self._window_start = iteration
        self._losses.append(loss)
        if len(self._losses) < self.limits.plateau:
            return []
        median = statistics.median(self._losses)
        # Twice the standard error of a median of normal values: less is no gain but chance.
        noise = 2 * 1.253 * statistics.pstdev(self._losses) / math.sqrt(len(self._losses))
        self._losses = []
        if self._best is None or median < self._best[0] - max(self.limits.gain * abs(self._best[0]), noise):
            self._best = (median, self._window_start)
            self._reported.discard("plateau")  # after a gain the next plateau is another one
            return []
        if not self._is_new("plateau"):
            return []
        best, since = self._best
        evidence = (
            f"over {self.limits.plateau} observations the median loss is {median:.4g}, against {best:.4g} before; the "
            f"gradient norm is {total_norm:.2g}; if this is not convergence, change the learning rate"
        )
        return [GradientVerdict("plateau", "", (), since, iteration, evidence)]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know, as plain data."""
        return {
            "streaks": {name: dict(streaks.runs) for name, streaks in self._streaks.items()},
            "reported": sorted(self._reported),
            "levels": dict(self._levels),
            "losses": list(self._losses),
            "best": self._best,
            "window_start": self._window_start,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._streaks = {}
        for name, runs in state["streaks"].items():
            self._streak(name).runs = {key: list(run) for key, run in runs.items()}
        self._reported = set(state["reported"])
        self._levels = {name: (level[0], level[1], level[2]) for name, level in state["levels"].items()}
        self._losses = list(state["losses"])
        self._best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self._window_start = state["window_start"]

    def _trend(
        self,
        iteration: int,
        layers: Sequence[str],
        norms: Sequence[float],
        with_matrix: Sequence[int],
        part: str,
    ) -> tuple[list[GradientVerdict], int]:
        """Compare the layers near the input with those near the output.

        Returns:
            Verdicts, and how many of ``layers`` have vanished.
        """
        streaks = self._streak(f"trend/{part}")
        values = [norms[index] for index in with_matrix]
        # As a rule all are of one magnitude, and nothing else has to be asked.
        if len(values) < 4 or min(values) > max(values) * self.limits.fall:
            streaks.runs = {}
            return [], 0
        upper = sorted(value for value in values[len(values) // 2 :] if value)
        reference = upper[len(upper) // 2] if upper else math.nan
        # One stem or branch of its own scale is no trend.
        least = max(2, len(values) // 8)
        vanished = _leading(value < reference * self.limits.fall for value in values)
        exploded = _leading(value > reference / self.limits.fall for value in values)
        # Zeros that end at once are dead; zeros behind small numbers are too small to be squared.
        if vanished < least or values[vanished - 1] == 0:
            vanished = 0
        holding = (["vanishing"] if vanished else []) + (["exploding"] if exploded >= least else [])
        verdicts = []
        for kind in streaks.update(holding, iteration, self.limits.patience):
            count = vanished or exploded
            if self._is_new(f"{kind}/trend/{part}"):
                named = tuple(layers[index] for index in with_matrix[:count])
                evidence = (
                    f"gradient norms {'fall' if vanished else 'grow'} towards the input: median {reference:.1e} in the "
                    f"half near the output, {values[count - 1]:.1e} here, {values[0]:.1e} at {named[0]}; "
                    "use normalisation, skip connections or an initialisation that keeps the variance"
                )
                since = streaks.runs[kind][0]
                verdicts.append(GradientVerdict(kind, named[-1], named, since, iteration, evidence))
        return verdicts, with_matrix[vanished - 1] + 1 if vanished else 0

    def _growth(
        self, iteration: int, layers: Sequence[str], norms: Sequence[float], part: str
    ) -> list[GradientVerdict]:
        """Compare the total norm with its own level."""
        total = math.log10(math.hypot(*norms))
        level, highest, count = self._levels.get(part, (total, -math.inf, 0))
        # A bad batch late in a training, when gradients are small, is none that it has not had before.
        grown = count >= WARM_UP and total > max(level + math.log10(self.limits.growth), highest)
        streaks = self._streak(f"growth/{part}")
        sure = streaks.update(["growth"] if grown else [], iteration, CONFIRM)
        if not grown:
            count = min(count + 1, MEMORY)
            level += (total - level) / count
            self._levels[part] = (level, max(highest, level), count)
        if not sure or not self._is_new(f"exploding/growth/{part}"):
            return []
        worst = norms.index(max(norms))
        evidence = (
            f"the total gradient norm is {10**total:.1e}, {10 ** (total - level):.0f} times its level, most of it here "
            f"({norms[worst]:.1e}); lower the learning rate, lengthen its warm-up or clip the gradients"
        )
        since = streaks.runs["growth"][0]
        return [GradientVerdict("exploding", layers[worst], (layers[worst],), since, iteration, evidence)]

    def _idle(self, kind: str, names: Sequence[str], iteration: int, part: str) -> list[GradientVerdict]:
        """Report all that became idle at the same time as one."""
        streaks = self._streak(f"{kind}/{part}")
        sure = streaks.update(names, iteration, self.limits.patience)
        new = tuple(name for name in sure if self._is_new(f"{kind}/{name}"))
        if not new:
            return []
        advice = {
            "dead": "the gradient is exactly 0: a dead activation or a loss that does not reach it",
            "unused": "no gradient at all: it takes no part in the loss; remove or freeze it",
        }[kind]
        return [GradientVerdict(kind, new[-1], new, streaks.runs[new[-1]][0], iteration, advice)]

    def _streak(self, name: str) -> _Streaks:
        return self._streaks.setdefault(name, _Streaks())

    def _is_new(self, cause: str) -> bool:
        if cause in self._reported:
            return False
        self._reported.add(cause)
        return True


def _leading(conditions: Iterable[bool]) -> int:
    """Return how many are true at the beginning."""
    return sum(1 for _ in itertools.takewhile(bool, conditions))

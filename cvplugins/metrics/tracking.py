"""Tracking of many objects: CLEAR MOT, identity and HOTA from one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .clear_mot import ClearCounts, clear_counts, match_clear
from .hota import ALPHAS, HotaCounts, hota_counts
from .identity import IdentityCounts, identity_counts
from .track_pairs import TrackPairs, track_pairs
from .tracked_frame import TrackedFrame
from .undefined import defined, none_if_undefined

__all__ = ["Timeline", "TrackingMetric", "TrackingResult"]

Integers = NDArray[np.int64]


class Timeline(NamedTuple):
    """Every true box that counts and the track that CLEAR MOT matched to it, ordered by sequence, class and frame."""

    sequence: Integers
    label: Integers
    frame: Integers
    truth_id: Integers
    id: Integers
    matched: NDArray[np.bool_]


@dataclass(frozen=True)
class TrackingResult:
    """The counts of :class:`TrackingMetric`, and the measures of any sum of them.

    Attributes:
        sequences: Names, S of them, sorted.
        classes: Class names, C of them.
        frames: Frames of each sequence, ``(S,)``.
        timed_frames: Frames whose time is known, ``(S,)``.
        seconds: Their time, ``(S,)``.
        clear: CLEAR MOT, arrays ``(S, C)``.
        identity: Identity, arrays ``(S, C)``.
        hota: HOTA, arrays ``(S, C, 19)``.
        timeline: What was matched when, for a drawing.
    """

    sequences: tuple[int | str, ...]
    classes: tuple[str, ...]
    frames: Integers
    timed_frames: Integers
    seconds: NDArray[np.float64]
    clear: ClearCounts
    identity: IdentityCounts
    hota: HotaCounts
    timeline: Timeline

    def measures(self, sequence: int | str | None = None, label: str | None = None) -> dict[str, float]:
        """Return every measure of one sequence or all and one class or all; NaN where undefined.

        Counts are summed before they are divided, and the parts of HOTA are weighted by their matches, as TrackEval
        combines sequences, and classes when it averages over detections.

        Args:
            sequence: One of ``sequences``.
            label: One of ``classes``.

        Raises:
            ValueError: There is no such sequence or class.
        """
        rows, columns = _place(self.sequences, sequence, "sequence"), _place(self.classes, label, "class")
        values: dict[str, float] = {}
        for counts in (self.hota, self.clear, self.identity):
            values |= counts[rows, columns].sum((0, 1)).measures()
        timed, seconds = self.timed_frames[rows].sum(), math.fsum(self.seconds[rows])
        return {**values, "FPS": float(timed / seconds) if timed else float("nan")}

    def curves(self) -> dict[str, NDArray[np.floating]]:
        """Return HOTA and its parts over all sequences and classes at each IoU threshold, ``(19,)`` each."""
        return self.hota.sum((0, 1)).curves()

    def numbers(self) -> dict[str, float]:
        """Return the measures over everything; of several classes also of each, and the means over them.

        What is undefined is NaN, and left out of the means.
        """
        values = self.measures()
        if len(self.classes) > 1:
            per_class = {label: self.measures(label=label) for label in self.classes}
            for name in ("HOTA", "MOTA", "IDF1"):
                values |= {f"{name}/{label}": each[name] for label, each in per_class.items()}
                known = [each[name] for each in per_class.values() if not math.isnan(each[name])]
                values[f"m{name}"] = math.fsum(known) / len(known) if known else float("nan")
        return values

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the timeline as plain data that JSON can hold; undefined numbers are None."""
        return {
            "combined": _plain(self.measures()),
            "per_class": {label: _plain(self.measures(label=label)) for label in self.classes},
            "per_sequence": {
                str(sequence): {
                    "frames": int(self.frames[place]),
                    **_plain(self.measures(sequence)),
                    "per_class": {label: _plain(self.measures(sequence, label)) for label in self.classes},
                }
                for place, sequence in enumerate(self.sequences)
            },
            "alphas": ALPHAS.round(2).tolist(),
            "curves": {
                name: [none_if_undefined(value) for value in values.tolist()] for name, values in self.curves().items()
            },
        }


class TrackingMetric:
    """CLEAR MOT, identity and HOTA over frames in any order, exact whatever their split.

    The rules and the counts are TrackEval's; boxes match within a class. It differs from TrackEval in what has no
    value: a measure whose divisor is 0 is NaN and left out, where TrackEval divides by 1 or, for MLR, says 1.
    It differs from motmetrics, as TrackEval does: in CLEAR MOT only a match of the frame before is kept first, the rest
    is matched for the greatest IoU; MOTP is the mean IoU, not the mean distance; 80 % of a track's frames are not yet
    "mostly tracked".

    The state is one :class:`TrackedFrame` a frame; what ranks hold is merged in any order. A frame that comes twice, as
    from a sampler that pads, counts once.

    Args:
        classes: Class names, at least one.
        iou_threshold: Smallest IoU that matches in CLEAR MOT and identity, in (0, 1].

    Raises:
        ValueError: No class is given, or the threshold is out of range.

    Example:
        >>> metric = TrackingMetric(["car"])
        >>> for frame in range(4):  # the tracker changes the car's id once
        ...     metric.update(TrackedFrame("street", frame, [frame // 2], [[0, 0, 9, 9]], [7], [[0, 0, 9, 9]]))
        >>> scalars = metric.compute().scalars()
        >>> scalars["MOTA"], scalars["IDSW"], scalars["IDF1"]
        (0.75, 1.0, 0.5)
    """

    def __init__(self, classes: Sequence[str], iou_threshold: float = 0.5) -> None:
        if len(classes) == 0:
            raise ValueError("a tracking metric needs the names of its classes, at least one")
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold is {iou_threshold}; expected a number above 0, at most 1")
        self.classes = tuple(classes)
        self.iou_threshold = iou_threshold
        self.frames: dict[tuple[int | str, int], TrackedFrame] = {}

    def update(self, frame: TrackedFrame) -> None:
        """Add one frame.

        Raises:
            ValueError: A label is none of the classes, or the frame was added before with other boxes.
        """
        for name in ("labels", "truth_labels"):
            labels = getattr(frame, name)
            if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                wrong = labels[(labels < 0) | (labels >= len(self.classes))][0]
                raise ValueError(
                    f"sequence {frame.sequence}, frame {frame.frame}: {name} holds {wrong}; "
                    f"there are {len(self.classes)} classes, from 0"
                )
        known = self.frames.setdefault((frame.sequence, frame.frame), frame)
        if known is not frame and not known.same_as(frame):
            raise ValueError(
                f"sequence {frame.sequence}, frame {frame.frame} was added twice with different boxes; "
                "each video needs a name of its own"
            )

    def merge(self, other: TrackingMetric) -> None:
        """Add the frames of another part of the data set.

        Raises:
            ValueError: Classes or threshold differ, or the parts disagree about a frame.
        """
        if (other.classes, other.iou_threshold) != (self.classes, self.iou_threshold):
            raise ValueError(
                f"cannot merge metrics of different classes or thresholds: {self.classes} at {self.iou_threshold} and "
                f"{other.classes} at {other.iou_threshold}"
            )
        for frame in other.frames.values():
            self.update(frame)

    def compute(self) -> TrackingResult:
        """Return the counts over all frames so far."""
        frames = sorted(self.frames.values(), key=_order)
        names = tuple(dict.fromkeys(frame.sequence for frame in frames))
        place = {name: index for index, name in enumerate(names)}
        sequence = np.array([place[frame.sequence] for frame in frames], np.int64)
        pairs = track_pairs(frames, sequence, len(self.classes))
        match = match_clear(pairs, self.iou_threshold)
        shape = (len(names), len(self.classes))
        seconds: list[list[float]] = [[] for _ in names]
        for frame in frames:
            if frame.seconds is not None:
                seconds[place[frame.sequence]].append(frame.seconds)
        return TrackingResult(
            sequences=names,
            classes=self.classes,
            frames=np.bincount(sequence, minlength=len(names)),
            timed_frames=np.array([len(each) for each in seconds], np.int64),
            seconds=np.array([math.fsum(each) for each in seconds]),
            clear=clear_counts(pairs, match).reshape(shape),
            identity=identity_counts(pairs, self.iou_threshold).reshape(shape),
            hota=hota_counts(pairs).reshape(shape),
            timeline=_timeline(pairs, match, len(self.classes)),
        )


def _order(frame: TrackedFrame) -> tuple[bool, Any, int]:
    return isinstance(frame.sequence, str), frame.sequence, frame.frame


def _timeline(pairs: TrackPairs, match: Integers, num_classes: int) -> Timeline:
    sequence, label = np.divmod(pairs.truths.unit, num_classes)
    matched = match >= 0
    ids = np.zeros(len(match), np.int64)
    ids[matched] = pairs.tracked.id[match[matched]]
    return Timeline(sequence, label, pairs.truths.frame, pairs.truths.id, ids, matched)


def _place(names: Sequence[Any], name: Any, kind: str) -> slice:
    if name is None:
        return slice(None)
    if name not in names:
        raise ValueError(f"there is no {kind} {name!r}; there are: {', '.join(map(str, names)) or 'none'}")
    return slice(names.index(name), names.index(name) + 1)


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {name: none_if_undefined(value) for name, value in values.items()}
